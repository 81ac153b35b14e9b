"""Vectors in Milvus: a server, or a file of Milvus Lite that one process at a time can open: for tests and laptops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus import CollectionSchema, DataType, MilvusClient

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores.collection_store import CollectionStore
from dssm_assets.extras.vector_stores.conditions import NO_CONDITION, ColumnCondition, Condition, UnsupportedConditionError
from dssm_assets.extras.vector_stores.store import (
    INTEREST,
    KEYS,
    MODEL_DIGEST,
    VECTOR,
    Found,
    Rows,
    StoredVectors,
    new_token,
    store_errors,
)

_TIMEOUT_SECONDS: Final = 10
_INDEX_SECONDS: Final = 3600
_STRONG: Final = "Strong"
"""Readers see every row that was written before."""
_POINT: Final = "user_and_interest"
_MAX_TEXT: Final = 65_535
_MAX_ENTRIES: Final = 4096
_MAX_LIST: Final = 16_384
_INDEX: Final = {"M": 32, "efConstruction": 256}
_SEARCH_WIDTH: Final = 512
"""Candidates of a search of the index, at least."""
_BATCH_CELLS: Final = 2**18
_BATCH_IDS: Final = 1000
_BATCH_FOUND: Final = 20_000
"""Ids in an answer to searches."""
_BATCH_COMPARED: Final = 4096
_INT64_END: Final = 2**63

_T = TypeVar("_T")


class MilvusStore(CollectionStore):
    """Collections of a server, `milvus://user:password@host:19530/database`, `milvus+https://:TOKEN@host`, or of `milvus:///file.db`."""

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any]) -> None:
        super().__init__(scene)
        user, self._password = unquote(uri.username or ""), unquote(uri.password or "")
        address = uri.netloc.rpartition("@")[2] + uri.path
        self._scene, self.where = scene, f"Milvus store {address}"
        url = f"http{'s' * uri.scheme.endswith('https')}://{address}" if uri.hostname else address
        token = f"{user}:{self._password}" if user else self._password
        self.client = self.call(MilvusClient, url, token=token)

    def call(self, function: Callable[..., _T], *args: Any, timeout: float = _TIMEOUT_SECONDS, **options: Any) -> _T:
        """Returns what a call of the client returns; turns its errors into a StorageError."""
        with store_errors(self.where, [self._password]):
            return function(*args, timeout=timeout, **options)

    def list_names(self) -> list[str]:
        return list(self.call(self.client.list_collections))

    def find_aliases(self) -> dict[str, str]:
        collections = [name for table in VectorTable for name in self.find_collections(table)]
        return {alias: name for name in collections for alias in self.call(self.client.list_aliases, name)["aliases"]}

    def change_aliases(self, created: Mapping[str, str], altered: Mapping[str, str], dropped: Sequence[str]) -> None:
        for alias, collection in created.items():
            self.call(self.client.create_alias, collection, alias)
        for alias, collection in altered.items():
            self.call(self.client.alter_alias, collection, alias)
        for alias in dropped:
            self.call(self.client.drop_alias, alias)

    def drop(self, collection: str) -> None:
        self.call(self.client.drop_collection, collection)

    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        return MilvusVectors(self, table, collection)

    def write(self, table: VectorTable, rows: Rows) -> str:
        name = f"{self._scene}_{table}_{new_token()}"
        schema = _make_schema(table, rows.schema)
        self.call(self.client.create_collection, name, schema=schema, consistency_level=_STRONG)
        for batch in rows.batches:
            self.upsert_rows(table, name, pa.Table.from_batches([batch]))
        self.call(self.client.flush, name, timeout=_INDEX_SECONDS)
        index = self.client.prepare_index_params()
        if table is VectorTable.ITEM:
            index.add_index(VECTOR, index_type="HNSW", metric_type="IP", params=_INDEX)
        else:
            index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
        self.call(self.client.create_index, name, index, timeout=_INDEX_SECONDS)
        self.call(self.client.load_collection, name, timeout=_INDEX_SECONDS)
        return name

    def upsert_rows(self, table: VectorTable, collection: str, rows: pa.Table) -> None:
        step = max(1, _BATCH_CELLS // (rows.schema.field(VECTOR).type.list_size + rows.num_columns))
        for start in range(0, rows.num_rows, step):
            self.call(self.client.upsert, collection, _make_entities(table, rows.slice(start, step)))

    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        self.call(self.client.load_collection, collection, timeout=_INDEX_SECONDS)
        for start in range(0, len(ids), _BATCH_IDS):
            self.call(self.client.delete, collection, filter=_match_ids(table, ids[start : start + _BATCH_IDS]))


class MilvusVectors(StoredVectors):
    """The entities of a collection."""

    def __init__(self, store: MilvusStore, table: VectorTable, collection: str) -> None:
        self._store, self._table, self._collection, self._key = store, table, collection, KEYS[table][0]
        store.call(store.client.load_collection, collection, timeout=_INDEX_SECONDS)
        fields = {field["name"]: field for field in store.call(store.client.describe_collection, collection)["fields"]}
        self._width = int(fields[VECTOR]["params"]["dim"])
        id_type = pa.int64() if fields[self._key]["type"] == DataType.INT64 else pa.string()
        self._types = {self._key: id_type, INTEREST: pa.int32(), MODEL_DIGEST: pa.string()}

    def count(self) -> int:
        return int(self._query("", ["count(*)"])[0]["count(*)"])

    def read(self, ids: pa.Array) -> pa.Table:
        names = [*KEYS[self._table], MODEL_DIGEST]
        conditions = [_match_ids(self._table, ids[start : start + _BATCH_IDS]) for start in range(0, len(ids), _BATCH_IDS)]
        found = [row for condition in conditions for row in self._query(condition, [*names, VECTOR])]
        columns = {name: pa.array([row[name] for row in found], self._types[name]) for name in names}
        vectors = np.array([row[VECTOR] for row in found], np.float32).reshape(-1)
        return pa.table({**columns, VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors), self._width)})

    def _query(self, condition: str, names: list[str]) -> list[dict[str, Any]]:
        client = self._store.client
        options = {"filter": condition, "output_fields": names, "consistency_level": _STRONG}
        return list(self._store.call(client.query, self._collection, **options))

    def search(self, vectors: Vectors, k: int, condition: Condition = NO_CONDITION, *, is_exact: bool = False) -> list[Found]:
        if k > _MAX_LIST:
            raise UnsupportedConditionError(f"a list of more than {_MAX_LIST}")
        wanted, step = _write_condition(condition), max(1, _BATCH_FOUND // k)
        search = self._compare if is_exact else self._search
        return [one for start in range(0, len(vectors), step) for one in search(vectors[start : start + step], k, wanted)]

    def _search(self, vectors: Vectors, k: int, condition: str) -> list[Found]:
        """Returns a list for each vector; where the index finds too few, every row is compared."""
        options = {
            "data": list(vectors),
            "filter": condition,
            "limit": k,
            "search_params": {"metric_type": "IP", "params": {"ef": max(_SEARCH_WIDTH, 2 * k)}},
            "output_fields": [self._key],
            "consistency_level": _STRONG,
        }
        answers = self._store.call(self._store.client.search, self._collection, **options)
        if any(len(hits) < k for hits in answers):
            return self._compare(vectors, k, condition)
        return [
            (
                pa.array([hit["entity"][self._key] for hit in hits], self._types[self._key]),
                np.array([hit["distance"] for hit in hits], np.float32),
            )
            for hits in answers
        ]

    def _compare(self, vectors: Vectors, k: int, condition: str) -> list[Found]:
        """Returns the exact lists: a server has no search without its index, so that all rows that pass are read."""
        options = {"filter": condition, "output_fields": [self._key, VECTOR], "consistency_level": _STRONG}
        client, ids = self._store.client, list[Any]()
        scores, rows = np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        found = self._store.call(client.query_iterator, self._collection, batch_size=_BATCH_COMPARED, **options)
        while part := self._store.call(lambda timeout: found.next()):
            matrix = np.array([row[VECTOR] for row in part], np.float32)
            numbers = np.broadcast_to(np.arange(len(ids), len(ids) + len(part)), (len(vectors), len(part)))
            scores, rows = np.hstack([scores, vectors @ matrix.T]), np.hstack([rows, numbers])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
            ids += [row[self._key] for row in part]
        known = pa.array(ids, self._types[self._key])
        return [(known.take(pa.array(chosen)), best) for chosen, best in zip(rows, scores, strict=True)]


def _make_schema(table: VectorTable, schema: pa.Schema) -> CollectionSchema:
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    if table is VectorTable.USER:
        made.add_field(_POINT, DataType.VARCHAR, is_primary=True, max_length=_MAX_TEXT)
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = _choose_type(kind.value_type if is_list(kind) else kind)
        limits = {"max_length": _MAX_TEXT} if value is DataType.VARCHAR else {}
        if name == VECTOR:
            made.add_field(name, DataType.FLOAT_VECTOR, dim=kind.list_size)
        elif is_list(kind):
            made.add_field(name, DataType.ARRAY, element_type=value, max_capacity=_MAX_ENTRIES, nullable=True, **limits)
        elif (name,) == KEYS[table]:
            made.add_field(name, value, is_primary=True, **limits)
        else:
            made.add_field(name, value, nullable=name not in KEYS[table], **limits)
    return made


def _choose_type(kind: pa.DataType) -> DataType:
    """Returns the type of values; times are integers in the unit of their column."""
    if pa.types.is_boolean(kind):
        return DataType.BOOL
    if pa.types.is_floating(kind):
        return DataType.DOUBLE
    return DataType.INT64 if pa.types.is_integer(kind) or pa.types.is_temporal(kind) else DataType.VARCHAR


def _make_entities(table: VectorTable, rows: pa.Table) -> list[dict[str, Any]]:
    for number, field in enumerate(rows.schema):
        if pa.types.is_temporal(field.type.value_type if is_list(field.type) else field.type):
            rows = rows.set_column(number, field.name, _to_integers(rows.column(number)))
    if table is VectorTable.USER:
        parts = [rows.column(name).cast(pa.string()) for name in reversed(KEYS[table])]
        rows = rows.append_column(_POINT, pc.binary_join_element_wise(*parts, ":"))
    return rows.to_pylist()


def _to_integers(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type.value_type if is_list(times.type) else times.type
    first, second = (pa.int32() if pa.types.is_date32(kind) else pa.int64()), pa.int64()
    return times.cast(pa.list_(first)).cast(pa.list_(second)) if is_list(times.type) else times.cast(first).cast(second)


def _match_ids(table: VectorTable, ids: pa.Array) -> str:
    return f"{KEYS[table][0]} in [{', '.join(_write_value(ids.type, value) for value in ids.to_pylist())}]"


def _write_condition(condition: Condition) -> str:
    return " or ".join(f"({' and '.join(map(_write, group))})" for group in condition)


def _write(one: ColumnCondition) -> str:
    name, parts = one.column, list[str]()
    missing = f"({name} is null or array_length({name}) == 0)" if one.is_list else f"({name} is null)"

    def write_any(values: Sequence[Any]) -> str:
        listed = f"[{', '.join(_write_value(one.type, value) for value in values)}]"
        if not values:
            return f"({name} is null and {name} is not null)"
        return f"array_contains_any({name}, {listed})" if one.is_list else f"({name} in {listed})"

    if one.any_of is not None:
        parts.append(f"({missing} or {write_any(one.any_of)})" if one.or_missing else write_any(one.any_of))
    if one.none_of:
        parts.append(f"({missing} or not {write_any(one.none_of)})")
    if one.not_missing:
        parts.append(f"({name} is not null and array_length({name}) > 0)" if one.is_list else f"({name} is not null)")
    bounds = [(sign, bound) for sign, bound in ((">=", one.low), ("<=", one.high)) if bound is not None]
    if bounds and one.is_list:
        raise UnsupportedConditionError(f"bounds of the entries of {name}")
    parts += [f"{name} {sign} {_write_bound(one.type, bound, is_low=sign == '>=')}" for sign, bound in bounds]
    return " and ".join(parts) or f"({name} is null or {name} is not null)"


def _write_bound(kind: pa.DataType, bound: Any, *, is_low: bool) -> str:
    if pa.types.is_integer(kind):
        bound = math.ceil(bound) if is_low else math.floor(bound)
        if abs(bound) >= _INT64_END:
            raise UnsupportedConditionError("a bound beyond int64")
    return _write_value(kind, bound)


def _write_value(kind: pa.DataType, value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if pa.types.is_boolean(kind):
        return str(value).lower()
    if pa.types.is_temporal(kind):
        return str(pa.scalar(value, kind).value)
    return repr(float(value)) if pa.types.is_floating(kind) else str(value)
