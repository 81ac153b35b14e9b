"""Contract tests of vector stores. The test module of a store inherits the class `VectorStoreContract`. Needs pytest.

    from dssm_assets.extras.vector_stores.testing import VectorStoreContract

    class TestMyStore(VectorStoreContract):
        @pytest.fixture
        def opened(self, tmp_path):
            return lambda: open_store(f"mystore://{tmp_path}", "shop", {})

Every test gets a new store. Each call of `opened()` opens it again, as another process would.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores.store import VECTORS, Changes, Rows, StoredVectors, VectorStore

Opener: TypeAlias = Callable[[], VectorStore]
ITEM, USER = VectorTable.ITEM, VectorTable.USER
A, B, C = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb", "2024-01-14-cccccccccccc"
DELTA: Final = "2024-01-12-dddddddddddd"
WIDTH: Final = 8


def item_rows(count: int, model: str = "model-a", seed: int = 0, width: int = WIDTH, *, is_text: bool = False) -> pa.Table:
    """Returns rows of items with the ids 0, 1, ... or i0, i1, .... Their vectors differ in length, as with a prior."""
    drawn = np.random.default_rng(seed)
    vectors = drawn.standard_normal((count, width)).astype(np.float32)
    ids = pa.array([f"i'{number} é" for number in range(count)]) if is_text else pa.array(np.arange(count))
    brands = [None if number % 7 == 0 else ("ann", "b'ob", "çem")[number % 3] for number in range(count)]
    tags = [None if number % 11 == 0 else [("x", "y", "z")[entry] for entry in range(number % 3)] for number in range(count)]
    start = dt.datetime(2024, 1, 1)
    return pa.table(
        {
            "item_id": ids,
            "item_tower_emb": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), width),
            "brand": pa.array(brands, pa.string()),
            "price": pa.array([None if number % 13 == 0 else number / 4 for number in range(count)], pa.float64()),
            "stock": pa.array([number % 10 for number in range(count)], pa.int64()),
            "is_new": pa.array([None if number % 5 == 0 else number % 2 == 0 for number in range(count)]),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "sizes": pa.array([[number % 4, 40 + number % 6] for number in range(count)], pa.list_(pa.int64())),
            "listed_on": pa.array([start.date() + dt.timedelta(days=number % 30) for number in range(count)], pa.date32()),
            "seen_at": pa.array([start + dt.timedelta(hours=number) for number in range(count)], pa.timestamp("us", "UTC")),
            "ds": pa.repeat("2024-01-12", count),
            "model_digest": pa.repeat(model, count),
        }
    )


def user_rows(users: list[Any], interests: int = 2, model: str = "model-a", width: int = WIDTH) -> pa.Table:
    """Returns one row per interest of some users."""
    count = len(users) * interests
    vectors = np.random.default_rng(1).standard_normal((count, width)).astype(np.float32)
    return pa.table(
        {
            "user_id": pa.array([user for user in users for _ in range(interests)]),
            "interest": pa.array(np.tile(np.arange(interests, dtype=np.int32), len(users))),
            "user_tower_emb": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), width),
            "ds": pa.repeat("2024-01-12", count),
            "model_digest": pa.repeat(model, count),
        }
    )


def to_rows(table: pa.Table, batch_rows: int = 512) -> Rows:
    return Rows(table.schema, table.num_rows, table.to_batches(batch_rows))


def publish(store: VectorStore, version: str, items: pa.Table, users: pa.Table | None = None) -> VectorStore:
    """Writes a version, serves it, and returns the store."""
    drafts = {VectorTable.ITEM: store.write(VectorTable.ITEM, to_rows(items))}
    if users is not None:
        drafts[VectorTable.USER] = store.write(VectorTable.USER, to_rows(users))
    store.add(version, version, drafts)
    store.serve(version)
    return store


def vectors_of(table: pa.Table) -> Vectors:
    (name,) = {*VECTORS.values()} & {*table.column_names}
    column = table.column(name).combine_chunks()
    vectors: Vectors = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors


def nearest(table: pa.Table, vector: npt.NDArray[np.float32], k: int) -> list[Any]:
    """Returns the ids of the k rows with the highest inner product, best first."""
    order = np.argsort(-(vectors_of(table) @ vector), kind="stable")[:k]
    return list(table.column("item_id").take(pa.array(order)).to_pylist())


def model_digests(stored: StoredVectors, ids: pa.Array) -> set[str]:
    return set(stored.read(ids).column("model_digest").to_pylist())


class VectorStoreContract:
    """Tests that every vector store must pass, for publishing and for search."""

    @pytest.mark.parametrize("is_text", [False, True])
    def test_rows_are_read_as_they_were_written(self, opened: Opener, is_text: bool) -> None:
        items = item_rows(700, is_text=is_text)
        store = opened()
        draft = store.write(ITEM, to_rows(items))
        stored = store.open(ITEM, draft)
        assert stored.count() == 700
        wanted = items.take(pa.array([3, 599, 698]))
        names = ["item_id", "item_tower_emb", "model_digest"]
        found = stored.read(wanted.column("item_id").combine_chunks()).select(names).cast(wanted.select(names).schema)
        assert found.sort_by("item_id").equals(wanted.select(names).sort_by("item_id"))

    def test_a_draft_is_no_version_until_it_is_added(self, opened: Opener) -> None:
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

    def test_versions_replace_each_other_and_come_back(self, opened: Opener) -> None:
        store = opened()
        first, second = item_rows(60, "model-a"), item_rows(80, "model-b", seed=1)
        publish(store, A, first)
        reader = opened().open(ITEM, A)
        publish(store, B, second.drop(["price"]))  # filter columns may change
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

    def test_a_version_that_is_not_stored_is_an_error(self, opened: Opener) -> None:
        store = publish(opened(), A, item_rows(20))
        with pytest.raises(PartitionMissingError, match=f"expected vectors of bundle {B}, got those of {A}"):
            store.open(ITEM, B)

    def test_exact_search_finds_the_highest_inner_products(self, opened: Opener) -> None:
        items = item_rows(500)
        store = publish(opened(), A, items)
        users = np.random.default_rng(5).standard_normal((3, 8)).astype(np.float32)
        for user, (ids, scores) in zip(users, store.open(ITEM, A).search(users, 20, is_exact=True), strict=True):
            assert ids.to_pylist() == nearest(items, user, 20)
            rows = ids.to_numpy(zero_copy_only=False)
            assert scores == pytest.approx(vectors_of(items)[rows] @ user, rel=1e-5)

    def test_a_list_is_as_long_as_there_are_rows(self, opened: Opener) -> None:
        items = item_rows(300)
        store = publish(opened(), A, items)
        ((ids, _),) = store.open(ITEM, A).search(vectors_of(items)[:1], 1000)
        assert sorted(ids.to_pylist()) == list(range(300))

    def test_the_index_finds_the_nearest_rows(self, opened: Opener) -> None:
        items = item_rows(2000, width=16)
        store = publish(opened(), A, items)
        users = np.random.default_rng(6).standard_normal((20, 16)).astype(np.float32)
        lists = store.open(ITEM, A).search(users, 200)
        hits = sum(
            len(set(ids.to_pylist()) & set(nearest(items, user, 200))) for user, (ids, _) in zip(users, lists, strict=True)
        )
        assert hits / (200 * 20) >= 0.95

    def test_a_revision_replaces_adds_and_removes_rows(self, opened: Opener) -> None:
        items, users = item_rows(100), user_rows(["u1", "u2", "ü'3"])
        store = publish(opened(), A, items, users)
        newer = item_rows(103, seed=9)
        changed = newer.take(pa.array([5, 6, 100, 101, 102]))
        nobody = Changes(users.slice(0, 0), pa.array([], pa.string()))
        for _ in range(2):  # a killed publisher repeats it
            store.update(A, DELTA, {ITEM: Changes(changed, pa.array([7, 8])), USER: nobody})
        assert (opened().find_versions(), opened().find_served()) == ({A: DELTA}, A)
        stored = opened().open(ITEM, A)
        assert stored.count() == 101
        found = stored.read(pa.array([4, 5, 7, 101])).sort_by("item_id")
        assert found.column("item_id").to_pylist() == [4, 5, 101]
        assert np.array_equal(
            vectors_of(found), vectors_of(pa.concat_tables([items.slice(4, 1), changed.take(pa.array([0, 3]))]))
        )
        target = vectors_of(changed)[3]
        ((ids, _),) = stored.search(1000 * target[None], 1)
        expected = nearest(
            pa.concat_tables([items.take(pa.array([n for n in range(100) if n not in (5, 6, 7, 8)])), changed]), target, 1
        )
        assert ids.to_pylist() == expected
        assert opened().open(USER, A).count() == 6

    def test_a_revision_that_fails_half_way_is_not_recorded_as_the_former(self, opened: Opener) -> None:
        items, store = item_rows(30), opened()
        publish(store, A, items, user_rows(["u1"]))
        changed = Changes(item_rows(30, seed=9).slice(3, 1), pa.array([], pa.int64()))
        unfit = Changes(user_rows(["u1"], width=3), pa.array([], pa.string()))
        with pytest.raises(StorageError):
            store.update(A, DELTA, {ITEM: changed, USER: unfit})
        (row,) = vectors_of(opened().open(ITEM, A).read(pa.array([3])))
        is_unchanged = np.array_equal(row, vectors_of(items)[3])
        assert opened().find_versions() == {A: A if is_unchanged else ""}

    def test_what_nobody_needs_is_named_and_removed(self, opened: Opener) -> None:
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

    def test_a_version_that_is_published_again_has_the_new_tables_alone(self, opened: Opener) -> None:
        publish(opened(), A, item_rows(20), user_rows(["u"]))
        open_rows = opened().open(ITEM, A)
        publish(opened(), A, item_rows(22, "model-b"))
        with pytest.raises(PartitionMissingError):
            opened().open(USER, A)
        for name in opened().find_removable([A], before=time.time() + 60):
            opened().remove(name)
        assert [open_rows.count(), len(open_rows.search(np.ones((1, 8), np.float32), 30)[0][0])] == [22, 22]
        assert model_digests(open_rows, pa.array([1, 2])) == {"model-b"}

    def test_a_version_of_users_alone_is_served(self, opened: Opener) -> None:
        store = opened()
        store.add(A, A, {USER: store.write(USER, to_rows(user_rows(["u"])))})
        store.serve(A)
        assert store.find_served() == A
        with pytest.raises(PartitionMissingError):
            store.serve(B)
        assert store.find_served() == A
