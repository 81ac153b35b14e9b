"""Every store keeps the contract of vector stores; what our own do beyond it."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import StorageError
from dssm_assets.extras.vector_stores.store import STORES, open_store
from dssm_assets.extras.vector_stores.testing import (
    ITEM,
    USER,
    A,
    Opener,
    VectorStoreContract,
    item_rows,
    nearest,
    publish,
    user_rows,
    vectors_of,
)


class TestStores(VectorStoreContract):
    """The four stores, opened by conftest.py."""


def test_a_search_that_takes_too_long_is_an_error(uri: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(opened(), A, item_rows(20))
    stored = open_store(uri, "shop", {}, seconds=5.0).open(ITEM, A)
    vectors = np.ones((300, 8), np.float32)
    assert len(stored.search(vectors, 20)) == 300
    clock = itertools.count(step=4.0)  # one request begins in time
    monkeypatch.setattr("dssm_assets.extras.vector_stores.store.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(StorageError, match="expected a search within 5 seconds, got a longer one"):
        stored.search(vectors, 20)


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["lancedb", "pgvector"], indirect=True)
def test_the_index_of_a_hundred_thousand_items_finds_the_nearest(opened: Opener) -> None:
    items = item_rows(100_000, width=64)
    store = publish(opened(), A, items)
    stored, users = store.open(ITEM, A), np.random.default_rng(6).standard_normal((50, 64)).astype(np.float32)
    assert stored.count() == 100_000
    pairs = zip(*(stored.search(users, 200, is_exact=is_exact) for is_exact in (False, True)), strict=True)
    hits = sum(len(set(found.to_pylist()) & set(exact.to_pylist())) for (found, _), (exact, _) in pairs)
    assert hits / (200 * 50) >= 0.95


def test_vectors_may_have_another_name(opened: Opener) -> None:
    """A version that was written before has the column `vector`; it is written again while a reader has it open."""
    items, target = item_rows(60), np.ones((1, 8), np.float32)
    users = user_rows(["u"]).rename_columns({"user_tower_emb": "vector"})
    publish(opened(), A, items.rename_columns({"item_tower_emb": "vector"}), users)
    reader = opened().open(ITEM, A)
    before = reader.find_vectors(), opened().open(USER, A).find_vectors()
    assert before in (("vector", "vector"), ("item_tower_emb", "user_tower_emb")), "points of Qdrant have no names"
    assert np.array_equal(vectors_of(reader.read(pa.array([3]))), vectors_of(items)[3:4])
    for newer in (items, item_rows(60, seed=1)):
        for is_exact in (False, True):
            ((ids, _),) = reader.search(target, 60, is_exact=is_exact)
            assert ids.to_pylist() == nearest(items, target[0], 60)
        publish(opened(), A, newer)
        items = newer
        for name in opened().find_removable([A], before=time.time() + 60):
            opened().remove(name)
    assert reader.find_vectors() == "item_tower_emb"


class Elsewhere:
    """Keeps what a store is made of."""

    def __init__(self, *given: object) -> None:
        self.given = given


def test_a_plugin_adds_a_store_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORES, "elsewhere", f"{__name__}:Elsewhere")
    store = open_store("elsewhere://host/a", "shop", {"key": 1}, 3.0)
    assert isinstance(store, Elsewhere)
    assert store.given == (urlsplit("elsewhere://host/a"), "shop", {"key": 1}, 3.0)
