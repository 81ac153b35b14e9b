"""Every store keeps the contract of vector stores; what our own do beyond it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest

from dssm_assets.core.errors import StorageError
from dssm_assets.extras.vector_stores.store import STORES, open_store
from dssm_assets.extras.vector_stores.testing import (
    ITEM,
    A,
    Opener,
    VectorStoreContract,
    item_rows,
    publish,
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


class Elsewhere:
    """Keeps what a store is made of."""

    def __init__(self, *given: object) -> None:
        self.given = given


def test_a_plugin_adds_a_store_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORES, "elsewhere", f"{__name__}:Elsewhere")
    store = open_store("elsewhere://host/a", "shop", {"key": 1}, 3.0)
    assert isinstance(store, Elsewhere)
    assert store.given == (urlsplit("elsewhere://host/a"), "shop", {"key": 1}, 3.0)
