"""Vectors in Qdrant: a server, or a folder that one process at a time can open, without an index: for tests and laptops."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final
from urllib.parse import SplitResult, unquote
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from qdrant_client import QdrantClient, models

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import Fault, StorageError
from dssm_assets.core.retrieval.vectors import Vectors, to_matrix
from dssm_assets.extras.vector_stores.collection_store import CollectionStore
from dssm_assets.extras.vector_stores.conditions import NO_CONDITION, ColumnCondition, Condition, UnsupportedConditionError
from dssm_assets.extras.vector_stores.store import (
    INTEREST,
    KEYS,
    MODEL_DIGEST,
    RESERVED,
    VECTOR,
    Found,
    Rows,
    StoredVectors,
    new_token,
    store_errors,
)

_TIMEOUT_SECONDS: Final = 10
_INDEX_SECONDS: Final = 3600
_INDEX: Final = models.HnswConfigDiff(m=32, ef_construct=256)
_NO_INDEX: Final = models.HnswConfigDiff(m=0)
_SEARCH_WIDTH: Final = 512
"""Candidates of a search of the index, at least."""
_BATCH_CELLS: Final = 2**18
"""Numbers in a request of rows, which are some megabytes of JSON."""
_BATCH_IDS: Final = 1000
_BATCH_FOUND: Final = 20_000
"""Ids in an answer to searches."""
_EXACT_FLOAT: Final = 2**53
_FOLDERS: Final[WeakValueDictionary[str, QdrantClient]] = WeakValueDictionary()
_FOLDER_LOCK: Final = threading.RLock()
"""The client of a folder is for one thread at a time."""


class QdrantStore(CollectionStore):
    """Collections of a server, `qdrant://:KEY@host:6333` or `qdrant+https://...`, or of a folder, `qdrant:///folder`."""

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any]) -> None:
        super().__init__(scene)
        self._scene, self._key = scene, unquote(uri.password or "")
        address = uri.netloc.rpartition("@")[2] + uri.path.rstrip("/")
        self.where, self._lock = f"Qdrant store {address}", nullcontext() if uri.hostname else _FOLDER_LOCK
        with self.calls():
            if uri.hostname:
                url = f"http{'s' * uri.scheme.endswith('https')}://{address}"
                self.client = QdrantClient(url, api_key=self._key or None, timeout=_TIMEOUT_SECONDS, check_compatibility=False)
            elif (known := _FOLDERS.get(address)) is not None:
                self.client = known
            else:
                self.client = _FOLDERS[address] = QdrantClient(path=address, force_disable_check_same_thread=True)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Turns errors of the client into a StorageError."""
        with self._lock, store_errors(self.where, [self._key]):
            yield

    def list_names(self) -> list[str]:
        with self.calls():
            return [one.name for one in self.client.get_collections().collections]

    def find_aliases(self) -> dict[str, str]:
        with self.calls():
            return {one.alias_name: one.collection_name for one in self.client.get_aliases().aliases}

    def change_aliases(self, created: Mapping[str, str], altered: Mapping[str, str], dropped: Sequence[str]) -> None:
        pairs = {**created, **altered}.items()
        new = [models.CreateAlias(alias_name=alias, collection_name=collection) for alias, collection in pairs]
        operations: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=one) for one in new]
        operations += [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in dropped]
        with self.calls():
            self.client.update_collection_aliases(operations)

    def drop(self, collection: str) -> None:
        with self.calls():
            self.client.delete_collection(collection)

    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        with self.calls():
            return QdrantVectors(self, table, collection)

    def write(self, table: VectorTable, rows: Rows) -> str:
        name, is_item = f"{self._scene}_{table}_{new_token()}", table is VectorTable.ITEM
        with self.calls():
            vectors = models.VectorParams(size=rows.width, distance=models.Distance.DOT)
            self.client.create_collection(name, vectors, hnsw_config=_INDEX if is_item else _NO_INDEX)
            for field in rows.schema:  # before the rows come, so that the graph has links for them
                if field.name not in RESERVED - {KEYS[table][0]}:
                    self.client.create_payload_index(name, _quote(field.name), _choose_index(field.type))
        for batch in rows.batches:
            self.upsert_rows(table, name, pa.Table.from_batches([batch]))
        self._wait_for_index(name)
        return name

    def upsert_rows(self, table: VectorTable, collection: str, rows: pa.Table) -> None:
        vectors = to_matrix(rows.column(VECTOR), self.where)
        step = max(1, _BATCH_CELLS // (vectors.shape[1] + rows.num_columns))
        for start in range(0, rows.num_rows, step):
            part = rows.slice(start, step)
            ids, payloads = _make_point_ids(part.select(KEYS[table])), _make_payloads(part.drop_columns([VECTOR]))
            points = models.Batch(ids=ids, vectors=vectors[start : start + step].tolist(), payloads=payloads)
            with self.calls():
                self.client.upsert(collection, points, wait=True)

    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        for start in range(0, len(ids), _BATCH_IDS):
            with self.calls():
                wanted = models.FilterSelector(filter=_match_ids(table, ids[start : start + _BATCH_IDS]))
                self.client.delete(collection, wanted, wait=True)

    def _wait_for_index(self, collection: str) -> None:
        end, status = time.monotonic() + _INDEX_SECONDS, None
        while status is not models.CollectionStatus.GREEN:
            with self.calls():
                status = self.client.get_collection(collection).status
            if status is models.CollectionStatus.RED or time.monotonic() > end:
                expected, remedy = f"an index within {_INDEX_SECONDS} s", "see the log of the server, then run again"
                raise StorageError(str(Fault(f"{self.where}, {collection}", expected, f"the status {status}", remedy)))
            time.sleep(0 if status is models.CollectionStatus.GREEN else 0.5)


class QdrantVectors(StoredVectors):
    """The points of a collection."""

    def __init__(self, store: QdrantStore, table: VectorTable, collection: str) -> None:
        self._store, self._table, self._collection, self._key = store, table, collection, KEYS[table][0]
        self._width = store.client.get_collection(collection).config.params.vectors.size
        first, _ = store.client.scroll(collection, limit=1, with_payload=[self._key])
        is_text = not first or isinstance(first[0].payload[self._key], str)
        self._types = {self._key: pa.string() if is_text else pa.int64(), INTEREST: pa.int32(), MODEL_DIGEST: pa.string()}

    def count(self) -> int:
        with self._store.calls():
            return self._store.client.count(self._collection, exact=True).count

    def read(self, ids: pa.Array) -> pa.Table:
        names = [*KEYS[self._table], MODEL_DIGEST]
        records = [
            record
            for start in range(0, len(ids), _BATCH_IDS)
            for record in self._scroll(ids[start : start + _BATCH_IDS], names)
        ]
        columns = {name: pa.array([record.payload[name] for record in records], self._types[name]) for name in names}
        vectors = np.array([record.vector for record in records], np.float32).reshape(-1)
        return pa.table({**columns, VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors), self._width)})

    def _scroll(self, ids: pa.Array, names: list[str]) -> Iterator[models.Record]:
        wanted, offset, is_first = _match_ids(self._table, ids), None, True
        while is_first or offset is not None:
            with self._store.calls():
                records, offset = self._store.client.scroll(
                    self._collection, wanted, limit=_BATCH_IDS, offset=offset, with_payload=names, with_vectors=True
                )
            yield from records
            is_first = False

    def search(self, vectors: Vectors, k: int, condition: Condition = NO_CONDITION, *, is_exact: bool = False) -> list[Found]:
        wanted, step = _write_filter(condition), max(1, _BATCH_FOUND // k)
        parts = [vectors[start : start + step] for start in range(0, len(vectors), step)]
        return [found for part in parts for found in self._search(part, k, wanted, is_exact=is_exact)]

    def _search(self, vectors: Vectors, k: int, wanted: models.Filter | None, *, is_exact: bool) -> list[Found]:
        """Returns a list for each vector; where the index finds too few, every row is compared."""
        params = models.SearchParams(exact=is_exact, hnsw_ef=max(_SEARCH_WIDTH, 2 * k))
        requests = [
            models.QueryRequest(query=vector, filter=wanted, limit=k, params=params, with_payload=[self._key])
            for vector in vectors.tolist()
        ]
        with self._store.calls():
            answers = [answer.points for answer in self._store.client.query_batch_points(self._collection, requests)]
        if not is_exact and any(len(points) < k for points in answers):
            return self._search(vectors, k, wanted, is_exact=True)
        return [
            (
                pa.array([point.payload[self._key] for point in points], self._types[self._key]),
                np.array([point.score for point in points], np.float32),
            )
            for points in answers
        ]


def _make_point_ids(keys: pa.Table) -> list[int | str]:
    """Returns the id of each point: a number is its own, below zero as unsigned; of others a digest."""
    if keys.num_columns == 1 and pa.types.is_integer(keys.column(0).type):
        return keys.column(0).cast(pa.int64()).to_numpy().view(np.uint64).tolist()
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, repr(tuple(key)))) for key in zip(*keys.to_pydict().values(), strict=True)]


def _make_payloads(rows: pa.Table) -> list[dict[str, Any]]:
    """Returns the columns of each row; times as ISO text, in UTC where they have a zone."""
    for number, field in enumerate(rows.schema):
        kind = field.type.value_type if is_list(field.type) else field.type
        if pa.types.is_temporal(kind):
            plain = pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind
            wrap = pa.list_ if is_list(field.type) else lambda one: one
            rows = rows.set_column(number, field.name, rows.column(number).cast(wrap(plain)).cast(wrap(pa.string())))
    return rows.to_pylist()


def _choose_index(kind: pa.DataType) -> models.PayloadSchemaType:
    value = kind.value_type if is_list(kind) else kind
    kinds = {
        pa.types.is_boolean: models.PayloadSchemaType.BOOL,
        pa.types.is_integer: models.PayloadSchemaType.INTEGER,
        pa.types.is_floating: models.PayloadSchemaType.FLOAT,
        pa.types.is_temporal: models.PayloadSchemaType.DATETIME,
    }
    return next((schema for is_kind, schema in kinds.items() if is_kind(value)), models.PayloadSchemaType.KEYWORD)


def _quote(column: str) -> str:
    """Returns the path of a column in a payload."""
    return f'"{column}"'


def _match_ids(table: VectorTable, ids: pa.Array) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=KEYS[table][0], match=models.MatchAny(any=ids.to_pylist()))])


def _write_filter(condition: Condition) -> models.Filter | None:
    return models.Filter(should=[models.Filter(must=[*map(_write, group)]) for group in condition]) if condition else None


def _write(one: ColumnCondition) -> models.Filter:
    key = _quote(one.column)
    missing = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))

    def match(values: Sequence[Any]) -> list[models.Condition]:
        if pa.types.is_boolean(one.type):
            return [models.FieldCondition(key=key, match=models.MatchValue(value=value)) for value in values]
        if pa.types.is_floating(one.type) or pa.types.is_temporal(one.type):
            return [models.FieldCondition(key=key, range=_write_range(value, value)) for value in values]
        return [models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))] if values else []

    must: list[models.Condition] = []
    if one.any_of is not None:
        options = match(one.any_of) + [missing] * one.or_missing
        must.append(models.Filter(should=options) if options else models.HasIdCondition(has_id=[]))
    if one.low is not None or one.high is not None:
        must.append(models.FieldCondition(key=key, range=_write_range(one.low, one.high)))
    return models.Filter(must=must, must_not=match(one.none_of) + [missing] * one.not_missing)


def _write_range(low: Any, high: Any) -> models.Range | models.DatetimeRange:
    """Returns bounds, of which one may be None."""
    known = low if high is None else high
    if isinstance(known, dt.date):
        low, high = (None if one is None else _to_utc(one) for one in (low, high))
        return models.DatetimeRange(gte=low, lte=high)
    if any(isinstance(one, int) and abs(one) > _EXACT_FLOAT for one in (low, high)):
        raise UnsupportedConditionError(f"a bound beyond {_EXACT_FLOAT}")
    return models.Range(gte=low, lte=high)


def _to_utc(moment: dt.date) -> dt.datetime:
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time())
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
