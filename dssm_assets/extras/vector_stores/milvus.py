"""Milvus as a vector store: a server, or (for tests and laptops) a file of Milvus Lite, which one process at a time can open."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final
from urllib.parse import SplitResult

import numpy as np
import pyarrow as pa
from pymilvus import CollectionSchema, DataType, MilvusClient

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores import collection_store as cs
from dssm_assets.extras.vector_stores import store as vs
from dssm_assets.extras.vector_stores.store import KEYS, VECTORS, StoredVectors

_STRONG: Final = "Strong"
"""With this level, readers see every row written before."""
_METRIC: Final = "IP"
_POINT: Final = "dssm_point"
_MAX_TEXT: Final = 65_535
_MAX_ENTRIES: Final = 4096
_COMPARED_ROWS: Final = 4096
_LOAD_SECONDS: Final = 60


class MilvusStore(cs.CollectionStore):
    """Collections of a server (`milvus://user:password@host:19530/database`, `milvus+https://:TOKEN@host`) or of a file
    (`milvus:///file.db`).
    """

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any], seconds: float | None) -> None:
        super().__init__(uri, scene, "Milvus", nullcontext(), seconds)
        token = f"{self.user}:{self.password}" if self.user else self.password
        self.client = self.call(MilvusClient, self.url if uri.hostname else self.address, token=token)

    def call(self, function: Callable[..., cs.T], *args: Any, timeout: float | None = None, **options: Any) -> cs.T:
        return super().call(function, *args, timeout=self.call_seconds if timeout is None else timeout, **options)

    def list_names(self) -> list[str]:
        return list(self.call(self.client.list_collections))

    def find_aliases(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for alias in self._list_aliases():
            try:
                found[alias] = self.call(self.client.describe_alias, alias)["collection_name"]
            except StorageError:
                if alias in self._list_aliases():
                    raise  # otherwise the alias was dropped meanwhile
        return found

    def _list_aliases(self) -> list[str]:
        aliases = self.call(self.client.list_aliases)["aliases"]
        return [alias for alias in aliases if alias.startswith(tuple(self._heads.values()))]

    def change_aliases(self, after: Mapping[str, str], dropped: Sequence[str]) -> None:
        known = self._list_aliases()
        for alias, collection in after.items():
            self.call(self.client.alter_alias if alias in known else self.client.create_alias, collection, alias)
        for alias in dropped:
            self.call(self.client.drop_alias, alias)

    def drop(self, collection: str) -> None:
        self.call(self.client.drop_collection, collection)

    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        return MilvusVectors(self, table, collection)

    def create(self, table: VectorTable, collection: str, schema: pa.Schema) -> None:
        self.call(self.client.create_collection, collection, schema=_make_schema(table, schema), consistency_level=_STRONG)
        params = {"M": cs.LINKS, "efConstruction": cs.LINK_CANDIDATES}
        kind: dict[str, Any] = {"index_type": "HNSW", "params": params} if table is VectorTable.ITEM else {"index_type": "FLAT"}
        index = self.client.prepare_index_params(VECTORS[table], metric_type=_METRIC, **kind)
        self.call(self.client.create_index, collection, index)

    def send_rows(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        self.call(self.client.insert if is_new else self.client.upsert, collection, _make_entities(table, rows))

    def finish(self, table: VectorTable, collection: str) -> None:
        self.call(self.client.flush, collection, timeout=cs.INDEX_SECONDS)
        index = VECTORS[table]
        self.wait(collection, lambda: not self.call(self.client.describe_index, collection, index)["pending_index_rows"])
        self.load(collection, cs.INDEX_SECONDS)

    def load(self, collection: str, seconds: float = _LOAD_SECONDS) -> None:
        """Loads a collection into the server's memory, so that it can be read."""
        self.call(self.client.load_collection, collection, timeout=seconds)

    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        self.load(collection)
        self.call(self.client.delete, collection, filter=_match_ids(KEYS[table][0], ids))


class MilvusVectors(cs.CollectionVectors):
    def __init__(self, store: MilvusStore, table: VectorTable, collection: str) -> None:
        self._store, self._client, self._collection = store, store.client, collection
        store.load(collection)
        fields = {field["name"]: field for field in store.call(store.client.describe_collection, collection)["fields"]}
        is_number = fields[KEYS[table][0]]["type"] == DataType.INT64
        width = int(fields[VECTORS[table]]["params"]["dim"])
        super().__init__(store, table, width, pa.int64() if is_number else pa.string())

    def count(self) -> int:
        return int(self._read(self._client.query, "", ["count(*)"])[0]["count(*)"])

    def find_rows(self, ids: pa.Array, names: list[str]) -> Iterator[dict[str, Any]]:
        yield from self._read(self._client.query, _match_ids(self.key, ids), [*names, self.vectors])

    def _read(self, method: Callable[..., Any], condition: str, names: list[str], *args: Any, **options: Any) -> Any:
        options |= {"filter": condition, "output_fields": names, "consistency_level": _STRONG}
        return self._store.call(method, self._collection, *args, **options)

    def find_nearest(self, vectors: Vectors, k: int, deadline: vs.Deadline, *, is_exact: bool) -> cs.Hits:
        deadline.check()
        if is_exact:
            return self._compare(vectors, k, deadline)
        params = {"metric_type": _METRIC, "params": {"ef": max(cs.SEARCH_CANDIDATES, 2 * k)}}
        answers = self._read(self._client.search, "", [self.key], list(vectors), limit=k, search_params=params)
        return [([hit["entity"][self.key] for hit in hits], [hit["distance"] for hit in hits]) for hits in answers]

    def _compare(self, vectors: Vectors, k: int, deadline: vs.Deadline) -> cs.Hits:
        """Returns exact lists. Reads all rows and compares them here, because a server only searches by its index."""
        scores, ids = np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), object)
        iterator = self._read(self._client.query_iterator, "", [self.key, self.vectors], batch_size=_COMPARED_ROWS)
        while part := self._store.call(lambda timeout: iterator.next()):
            deadline.check()
            products = vectors @ np.array([row[self.vectors] for row in part], np.float32).T
            found = np.broadcast_to(np.array([row[self.key] for row in part], object), products.shape)
            scores, ids = np.hstack([scores, products]), np.hstack([ids, found])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
        return list(zip(ids.tolist(), scores.tolist(), strict=True))


def _has_own_key(table: VectorTable, schema: pa.Schema) -> bool:
    """Returns whether the ids can be the primary key. Otherwise it is a digest: paging by text keys fails, as they are not quoted."""
    return table is VectorTable.ITEM and pa.types.is_integer(schema.field(KEYS[table][0]).type)


def _make_schema(table: VectorTable, schema: pa.Schema) -> CollectionSchema:
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    is_key = _has_own_key(table, schema)
    if not is_key:
        made.add_field(_POINT, DataType.VARCHAR, is_primary=True, max_length=_MAX_TEXT)
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = _choose_type(kind.value_type if is_list(kind) else kind)
        limits = {"max_length": _MAX_TEXT} if value is DataType.VARCHAR else {}
        if name == VECTORS[table]:
            made.add_field(name, DataType.FLOAT_VECTOR, dim=kind.list_size)
        elif is_list(kind):
            made.add_field(name, DataType.ARRAY, element_type=value, max_capacity=_MAX_ENTRIES, nullable=True, **limits)
        elif name in KEYS[table]:
            made.add_field(name, value, is_primary=is_key, **limits)
        else:
            made.add_field(name, value, nullable=True, **limits)
    return made


def _choose_type(kind: pa.DataType) -> DataType:
    """Returns Milvus's type for an Arrow type. Times are stored as integers in the unit of their column."""
    if pa.types.is_boolean(kind):
        return DataType.BOOL
    if pa.types.is_floating(kind):
        return DataType.DOUBLE
    return DataType.INT64 if pa.types.is_integer(kind) or pa.types.is_temporal(kind) else DataType.VARCHAR


def _make_entities(table: VectorTable, rows: pa.Table) -> list[dict[str, Any]]:
    for number, field in enumerate(rows.schema):
        kind = field.type.value_type if is_list(field.type) else field.type
        if pa.types.is_temporal(kind):
            for step in (pa.int32() if pa.types.is_date32(kind) else pa.int64(), pa.int64()):
                kind = pa.list_(step) if is_list(field.type) else step
                rows = rows.set_column(number, field.name, rows.column(number).cast(kind))
    if not _has_own_key(table, rows.schema):
        rows = rows.append_column(_POINT, pa.array(cs.make_point_ids(rows.select(KEYS[table]))))
    return list(rows.to_pylist())


def _match_ids(key: str, ids: pa.Array) -> str:
    return f"{key} in {json.dumps(ids.to_pylist(), ensure_ascii=False)}"
