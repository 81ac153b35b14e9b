"""Rows of vectors for tests, as a bundle would give them, and the plain answers to searches among them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.retrieval.item_filter import mask_items
from dssm_assets.extras.vector_stores.store import Rows, StoredVectors, VectorStore, find_vectors
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps.workspace import Workspace
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle

WIDTH = 8


def item_rows(count: int, model: str = "model-a", seed: int = 0, width: int = WIDTH, *, is_text: bool = False) -> pa.Table:
    """Returns rows of items, numbered from 0 or named i0, i1, ...; norms differ, as with a prior."""
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
    """Returns a row for each interest of some users."""
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
    """Writes a version and serves it; returns the store."""
    drafts = {VectorTable.ITEM: store.write(VectorTable.ITEM, to_rows(items))}
    if users is not None:
        drafts[VectorTable.USER] = store.write(VectorTable.USER, to_rows(users))
    store.add(version, version, drafts)
    store.serve(version)
    return store


def add_delta(workspace: Workspace, **changed: np.ndarray) -> str:
    """Stores and serves a delta in which some items have other vectors; returns its id."""
    bundles, plain = open_bundles(workspace.loaded), PlainBundle(workspace)
    table = plain.table("item_vectors.arrow")
    ids, vectors = table.column("item_id").to_pylist(), np.array(table.column("item_tower_emb").to_pylist(), np.float32)
    for name, vector in changed.items():
        vectors[ids.index(name)] = vector
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    body = {key: value for key, value in plain.manifest.items() if key not in ("format", "files", "was")} | {"delta": {}}
    with bundles.staging() as folder:
        with pa.ipc.new_file(str(folder / "item_vectors.arrow"), table.schema) as file:
            file.write_table(table.set_column(1, table.schema.field(1), lists))
        return bundles.publish(folder, body, 3, base=plain.bundle_id, served=plain.bundle_id).bundle_id


def vectors_of(table: pa.Table) -> np.ndarray:
    column = table.column(find_vectors(table.schema)).combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def nearest(table: pa.Table, vector: np.ndarray, k: int, filters: Any = None) -> list[Any]:
    """Returns the ids of the k rows with the highest inner product that pass filters, best first."""
    passes = np.ones(table.num_rows, bool) if filters is None else mask_items(table.drop(["item_tower_emb"]), filters)
    rows = np.flatnonzero(passes)
    order = np.argsort(-(vectors_of(table)[rows] @ vector), kind="stable")[:k]
    return table.column("item_id").take(pa.array(rows[order])).to_pylist()


def model_digests(stored: StoredVectors, ids: pa.Array) -> set[str]:
    return set(stored.read(ids).column("model_digest").to_pylist())
