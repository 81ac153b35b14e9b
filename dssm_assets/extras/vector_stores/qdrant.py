"""Qdrant as a vector store: a server, or (for tests and laptops) a folder without an index, which one process at a time can open."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final
from urllib.parse import SplitResult
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from qdrant_client import QdrantClient, models

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.retrieval.vectors import Vectors, to_matrix
from dssm_assets.extras.vector_stores import collection_store as cs
from dssm_assets.extras.vector_stores import store as vs
from dssm_assets.extras.vector_stores.store import DAY, KEYS, MODEL_DIGEST, VECTORS, StoredVectors

_FOLDERS: Final[WeakValueDictionary[str, QdrantClient]] = WeakValueDictionary()
_FOLDER_LOCK: Final = threading.RLock()
"""The client of a folder may be used by one thread at a time."""


class QdrantStore(cs.CollectionStore):
    """Collections of a server, `qdrant://:KEY@host:6333` or `qdrant+https://...`, or of a folder, `qdrant:///folder`."""

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any], seconds: float | None) -> None:
        super().__init__(uri, scene, "Qdrant", nullcontext() if uri.hostname else _FOLDER_LOCK, seconds)
        self.client = self.call(self._connect, is_folder=not uri.hostname)

    def _connect(self, *, is_folder: bool) -> QdrantClient:
        if is_folder:
            client = _FOLDERS.get(self.address) or QdrantClient(path=self.address, force_disable_check_same_thread=True)
            return _FOLDERS.setdefault(self.address, client)
        return QdrantClient(
            self.url, api_key=self.password or None, timeout=math.ceil(self.call_seconds), check_compatibility=False
        )

    def list_names(self) -> list[str]:
        return [one.name for one in self.call(self.client.get_collections).collections]

    def find_aliases(self) -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in self.call(self.client.get_aliases).aliases}

    def change_aliases(self, after: Mapping[str, str], dropped: Sequence[str]) -> None:
        new = [models.CreateAlias(alias_name=alias, collection_name=collection) for alias, collection in after.items()]
        operations: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=one) for one in new]
        operations += [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in dropped]
        self.call(self.client.update_collection_aliases, operations)

    def drop(self, collection: str) -> None:
        self.call(self.client.delete_collection, collection)

    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        return QdrantVectors(self, table, collection)

    def create(self, table: VectorTable, collection: str, schema: pa.Schema) -> None:
        name = VECTORS[table]
        vectors = models.VectorParams(size=schema.field(name).type.list_size, distance=models.Distance.DOT)
        index = models.HnswConfigDiff(m=cs.LINKS if table is VectorTable.ITEM else 0, ef_construct=cs.LINK_CANDIDATES)
        self.call(self.client.create_collection, collection, vectors, hnsw_config=index)
        for field in schema:  # before the rows, so that the index gets links for filtered searches
            if field.name not in (name, DAY, MODEL_DIGEST):
                self.call(self.client.create_payload_index, collection, _quote(field.name), _choose_index(field.type))

    def send_rows(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        name = VECTORS[table]
        points = models.Batch(
            ids=_make_point_ids(rows.select(KEYS[table])),
            vectors=to_matrix(rows.column(name), self.where).tolist(),
            payloads=_make_payloads(rows.drop_columns([name])),
        )
        self.call(self.client.upsert, collection, points, wait=True)

    def finish(self, table: VectorTable, collection: str) -> None:
        self.wait(collection, lambda: self.call(self._is_indexed, collection))

    def _is_indexed(self, collection: str) -> bool:
        info = self.client.get_collection(collection)
        if info.status is models.CollectionStatus.RED:
            raise RuntimeError(f"{collection}: {info.optimizer_status}")
        return info.status is models.CollectionStatus.GREEN

    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        self.call(self.client.delete, collection, models.FilterSelector(filter=_match_ids(KEYS[table][0], ids)), wait=True)


class QdrantVectors(cs.CollectionVectors):
    def __init__(self, store: QdrantStore, table: VectorTable, collection: str) -> None:
        self._store, self._collection, key = store, collection, KEYS[table][0]
        config: Any = store.call(store.client.get_collection, collection).config.params.vectors
        points, _ = store.call(store.client.scroll, collection, limit=1, with_payload=[key])
        is_number = any(isinstance(point.payload[key], int) for point in points if point.payload)
        super().__init__(store, table, config.size, pa.int64() if is_number else pa.string())

    def count(self) -> int:
        return self._store.call(self._store.client.count, self._collection, exact=True).count

    def find_rows(self, ids: pa.Array, names: list[str]) -> Iterator[dict[str, Any]]:
        options: dict[str, Any] = {"limit": len(ids), "with_payload": names, "with_vectors": True}
        while options:
            points, offset = self._store.call(self._store.client.scroll, self._collection, _match_ids(self.key, ids), **options)
            yield from ({**(point.payload or {}), self.vectors: point.vector} for point in points)
            options = {} if offset is None else {**options, "offset": offset}

    def find_nearest(self, vectors: Vectors, k: int, deadline: vs.Deadline, *, is_exact: bool) -> cs.Hits:
        deadline.check()
        params = models.SearchParams(exact=is_exact, hnsw_ef=max(cs.SEARCH_CANDIDATES, 2 * k))
        requests = [
            models.QueryRequest(query=vector, limit=k, params=params, with_payload=[self.key]) for vector in vectors.tolist()
        ]
        answers = [one.points for one in self._store.call(self._store.client.query_batch_points, self._collection, requests)]
        return [([(one.payload or {})[self.key] for one in points], [one.score for one in points]) for points in answers]


def _make_point_ids(keys: pa.Table) -> list[Any]:
    """Returns the id of each point: an integer key itself (a negative one as unsigned), a digest of any other key."""
    if keys.num_columns == 1 and pa.types.is_integer(keys.column(0).type):
        return list(keys.column(0).cast(pa.int64()).to_numpy().view(np.uint64).tolist())
    return cs.make_point_ids(keys)


def _make_payloads(rows: pa.Table) -> list[dict[str, Any]]:
    """Returns each row's columns as JSON values. Times become ISO text (UTC if they have a zone), and NaN becomes null."""
    for number, field in enumerate(rows.schema):
        column, kind = rows.column(number), field.type.value_type if is_list(field.type) else field.type
        if pa.types.is_floating(field.type):
            column = pc.if_else(pc.is_finite(column), column, None)
        if pa.types.is_temporal(kind):
            plain = pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind
            steps = [pa.list_(one) if is_list(field.type) else one for one in (plain, pa.string())]
            column = column.cast(steps[0]).cast(steps[1])
        rows = rows.set_column(number, field.name, column)
    return list(rows.to_pylist())


def _choose_index(kind: pa.DataType) -> models.PayloadSchemaType:
    value = kind.value_type if is_list(kind) else kind
    if pa.types.is_boolean(value):
        return models.PayloadSchemaType.BOOL
    if pa.types.is_integer(value):
        return models.PayloadSchemaType.INTEGER
    if pa.types.is_floating(value):
        return models.PayloadSchemaType.FLOAT
    return models.PayloadSchemaType.DATETIME if pa.types.is_temporal(value) else models.PayloadSchemaType.KEYWORD


def _quote(column: str) -> str:
    return f'"{column}"'


def _match_ids(key: str, ids: pa.Array) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchAny(any=ids.to_pylist()))])
