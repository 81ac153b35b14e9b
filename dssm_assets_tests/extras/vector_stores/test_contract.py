"""The contract of vector stores, which each store passes."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.extras.vector_stores.conditions import UnsupportedConditionError, parse_filters
from dssm_assets.extras.vector_stores.store import Changes, open_store
from dssm_assets_tests.extras.vector_stores.conftest import Opener
from dssm_assets_tests.extras.vector_stores.made_rows import (
    item_rows,
    model_digests,
    nearest,
    publish,
    to_rows,
    user_rows,
    vectors_of,
)

ITEM, USER = VectorTable.ITEM, VectorTable.USER
A, B, C = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb", "2024-01-14-cccccccccccc"
DELTA = "2024-01-12-dddddddddddd"
FILTERS = [
    {"brand": "b'ob"},
    {"brand": ["ann", None]},
    {"brand": {"not": "çem"}},
    {"brand": {"not": ["ann", None]}},
    {"brand": []},
    {"brand": None},
    {"is_new": True},
    {"is_new": {"not": True}},
    {"price": {"min": 20, "max": 60.5}},
    {"price": {"min": 100}, "stock": [1, 3, 5]},
    [{"brand": "ann", "stock": {"max": 4}}, {"price": {"max": 3}}],
    {"tags": "y"},
    {"tags": ["x", None]},
    {"tags": {"not": ["y"]}},
    {"tags": {"not": None}},
    {"sizes": 3},
    {"sizes": {"not": [0, 41]}},
    {"sizes": {"min": 2, "max": 3}},
    {"listed_on": "2024-01-05"},
    {"listed_on": {"min": "2024-01-05", "max": "2024-01-06"}},
    {"seen_at": {"min": "2024-01-02T00:00:00", "max": "2024-01-03T12:00:00+02:00"}},
    {"stock": {"not": [0, 1]}, "brand": {"in": ["ann", "b'ob"], "not": "ann"}},
]
UNSUPPORTED = [{"sizes": {"min": 2, "max": 3}}]
"""A store may lack bounds of a list's entries: the engine then compares every item that passes."""


@pytest.mark.parametrize("is_text", [False, True])
def test_rows_are_read_as_they_were_written(opened: Opener, is_text: bool) -> None:
    items = item_rows(700, is_text=is_text)
    store = opened()
    draft = store.write(ITEM, to_rows(items))
    stored = store.open(ITEM, draft)
    assert stored.count() == 700
    wanted = items.take(pa.array([3, 599, 698]))
    names = ["item_id", "item_tower_emb", "model_digest"]
    found = stored.read(wanted.column("item_id").combine_chunks()).select(names).cast(wanted.select(names).schema)
    assert found.sort_by("item_id").equals(wanted.select(names).sort_by("item_id"))


def test_a_draft_is_no_version_until_it_is_added(opened: Opener) -> None:
    store = opened()
    assert (store.find_versions(), store.find_served()) == ({}, None)
    draft = store.write(ITEM, to_rows(item_rows(50)))
    assert (opened().find_versions(), opened().find_served()) == ({}, None)
    store.add(A, DELTA, {ITEM: draft})
    assert (opened().find_versions(), opened().find_served()) == ({A: DELTA}, None)
    store.serve(A)
    assert opened().find_served() == A
    assert opened().open(ITEM, A).count() == 50
    assert store.find_removable([B], before=time.time() + 60) == [], "it is served"


def test_versions_replace_each_other_and_come_back(opened: Opener) -> None:
    store = opened()
    first, second = item_rows(60, "model-a"), item_rows(80, "model-b", seed=1)
    publish(store, A, first)
    reader = opened().open(ITEM, A)
    publish(store, B, second.drop(["price"]))  # columns for filters may change
    assert (opened().find_versions(), opened().find_served()) == ({A: A, B: B}, B)
    ids = second.column("item_id").combine_chunks()
    assert model_digests(opened().open(ITEM, B), ids) == {"model-b"}
    assert model_digests(reader, ids) == model_digests(opened().open(ITEM, A), ids) == {"model-a"}
    (found,) = reader.search(vectors_of(first)[:1], 60, is_exact=True)
    assert found[0].to_pylist() == nearest(first, vectors_of(first)[0], 60)
    store.serve(A)
    assert opened().find_served() == A
    publish(store, A, second)  # written again
    assert opened().open(ITEM, A).count() == 80


def test_a_version_that_is_not_stored_is_an_error(opened: Opener) -> None:
    store = publish(opened(), A, item_rows(20))
    with pytest.raises(PartitionMissingError, match=f"expected vectors of bundle {B}, got those of {A}"):
        store.open(ITEM, B)


def test_exact_search_finds_the_highest_inner_products(opened: Opener) -> None:
    items = item_rows(500)
    store = publish(opened(), A, items)
    users = np.random.default_rng(5).standard_normal((3, 8)).astype(np.float32)
    for user, (ids, scores) in zip(users, store.open(ITEM, A).search(users, 20, is_exact=True), strict=True):
        assert ids.to_pylist() == nearest(items, user, 20)
        rows = ids.to_numpy(zero_copy_only=False)
        assert scores == pytest.approx(vectors_of(items)[rows] @ user, rel=1e-5)


def test_a_list_is_as_long_as_there_are_rows(opened: Opener) -> None:
    items = item_rows(300)
    store = publish(opened(), A, items)
    ((ids, _),) = store.open(ITEM, A).search(vectors_of(items)[:1], 1000)
    assert sorted(ids.to_pylist()) == list(range(300))


def test_a_search_that_takes_too_long_is_an_error(uri: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(opened(), A, item_rows(20))
    stored = open_store(uri, "shop", {}, seconds=5.0).open(ITEM, A)
    vectors = np.ones((300, 8), np.float32)
    assert len(stored.search(vectors, 20)) == 300
    clock = itertools.count(step=4.0)  # one request begins in time
    monkeypatch.setattr("dssm_assets.extras.vector_stores.store.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(StorageError, match="expected a search within 5 seconds, got a longer one"):
        stored.search(vectors, 20)


def test_the_index_finds_the_nearest_rows(opened: Opener) -> None:
    items = item_rows(5000, width=16)
    store = publish(opened(), A, items)
    users = np.random.default_rng(6).standard_normal((20, 16)).astype(np.float32)
    lists = store.open(ITEM, A).search(users, 200)
    hits = sum(len(set(ids.to_pylist()) & set(nearest(items, user, 200))) for user, (ids, _) in zip(users, lists, strict=True))
    assert hits / (200 * 20) >= 0.95


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


def test_conditions_are_those_of_filters(opened: Opener) -> None:
    items = item_rows(400)
    store = publish(opened(), A, items)
    stored, user = store.open(ITEM, A), np.ones((1, 8), np.float32)
    columns = {field.name: field.type for field in items.schema}
    wrong = []
    for filters in FILTERS:
        condition = parse_filters(filters, columns)
        try:
            lists = [stored.search(user, 50, condition, is_exact=is_exact)[0][0].to_pylist() for is_exact in (True, False)]
        except UnsupportedConditionError:
            assert filters in UNSUPPORTED
            continue
        expected = nearest(items, user[0], 50, filters)
        wrong += [filters] if lists[0] != expected or sorted(lists[1]) != sorted(expected) else []
    assert wrong == []


def test_a_condition_that_few_rows_pass_gives_a_full_list(opened: Opener) -> None:
    items = item_rows(5000)
    store = publish(opened(), A, items)
    filters = {"price": {"min": 1, "max": 8}}
    condition = parse_filters(filters, {"price": pa.float64()})
    ((ids, _),) = store.open(ITEM, A).search(-np.ones((1, 8), np.float32), 20, condition)
    assert sorted(ids.to_pylist()) == sorted(nearest(items, -np.ones(8), 20, filters))


def test_a_revision_replaces_adds_and_removes_rows(opened: Opener) -> None:
    items, users = item_rows(100), user_rows(["u1", "u2", "ü'3"])
    store = publish(opened(), A, items, users)
    newer = item_rows(103, seed=9)
    changed = newer.take(pa.array([5, 6, 100, 101, 102]))
    nobody = Changes(users.slice(0, 0), pa.array([], pa.string()))
    for _ in range(2):  # once more after a kill
        store.update(A, DELTA, {ITEM: Changes(changed, pa.array([7, 8])), USER: nobody})
    assert (opened().find_versions(), opened().find_served()) == ({A: DELTA}, A)
    stored = opened().open(ITEM, A)
    assert stored.count() == 101
    found = stored.read(pa.array([4, 5, 7, 101])).sort_by("item_id")
    assert found.column("item_id").to_pylist() == [4, 5, 101]
    assert np.array_equal(vectors_of(found), vectors_of(pa.concat_tables([items.slice(4, 1), changed.take(pa.array([0, 3]))])))
    target = vectors_of(changed)[3]
    ((ids, _),) = stored.search(1000 * target[None], 1)
    expected = nearest(
        pa.concat_tables([items.take(pa.array([n for n in range(100) if n not in (5, 6, 7, 8)])), changed]), target, 1
    )
    assert ids.to_pylist() == expected
    assert opened().open(USER, A).count() == 6


def test_a_revision_that_fails_half_way_is_not_recorded_as_the_former(opened: Opener) -> None:
    items, store = item_rows(30), opened()
    publish(store, A, items, user_rows(["u1"]))
    changed = Changes(item_rows(30, seed=9).slice(3, 1), pa.array([], pa.int64()))
    unfit = Changes(user_rows(["u1"], width=3), pa.array([], pa.string()))
    with pytest.raises(StorageError):
        store.update(A, DELTA, {ITEM: changed, USER: unfit})
    (row,) = vectors_of(opened().open(ITEM, A).read(pa.array([3])))
    is_unchanged = np.array_equal(row, vectors_of(items)[3])
    assert opened().find_versions() == {A: A if is_unchanged else ""}


def test_what_nobody_needs_is_named_and_removed(opened: Opener) -> None:
    store = opened()
    for version in (A, B, C):
        publish(store, version, item_rows(30), user_rows([1, 2]))
    store.write(ITEM, to_rows(item_rows(10)))  # its writer was killed
    assert store.find_removable([C, B], before=0) != []
    for name in store.find_removable([C, B], before=0):
        store.remove(name)
        store.remove(name)
    assert opened().find_versions() == {B: B, C: C}
    leftovers = opened().find_removable([C, B], before=time.time() + 60)
    assert leftovers != []
    for name in leftovers:
        opened().remove(name)
    assert opened().find_removable([C, B], before=time.time() + 60) == []
    assert (opened().find_versions(), opened().find_served()) == ({B: B, C: C}, C)
    assert opened().open(ITEM, C).count() == 30
    assert opened().open(USER, B).count() == 4


def test_a_version_that_is_published_again_has_the_new_tables_alone(opened: Opener) -> None:
    publish(opened(), A, item_rows(20), user_rows(["u"]))
    open_rows = opened().open(ITEM, A)
    publish(opened(), A, item_rows(22, "model-b"))
    with pytest.raises(PartitionMissingError):
        opened().open(USER, A)
    for name in opened().find_removable([A], before=time.time() + 60):
        opened().remove(name)
    assert [open_rows.count(), len(open_rows.search(np.ones((1, 8), np.float32), 30)[0][0])] == [22, 22]
    assert model_digests(open_rows, pa.array([1, 2])) == {"model-b"}


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


def test_a_version_of_users_alone_is_served(opened: Opener) -> None:
    store = opened()
    store.add(A, A, {USER: store.write(USER, to_rows(user_rows(["u"])))})
    store.serve(A)
    assert store.find_served() == A
    with pytest.raises(PartitionMissingError):
        store.serve(B)
    assert store.find_served() == A
