"""LanceDB as a vector store: Lance tables in a folder or on S3 (`lancedb:///folder`, `lancedb+s3://bucket/folder`).

    <scene>_item_<token>, <scene>_user_<token>    a draft, or a table of a version, with an index
    <scene>_versions                              one row per version: its revision, its tables, and whether it is served

The table of versions replaces aliases: one row names the item table and the user table of a version. All versions in one tagged
table would not work: one publisher's `create_index` would index another's rows, and files with removed rows could stay.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final
from urllib.parse import SplitResult

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores import store as vs
from dssm_assets.extras.vector_stores.store import KEYS, VECTORS, Changes, Found, Rows
from dssm_assets.storage.locations import rename_s3_options

_S3_NAMES: Final = ("aws_endpoint", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region")
_LISTING_LIMITS: Final = {"connect_timeout": "1500ms", "timeout": "1500ms", "client_max_retries": "0"}
"""A server is asked up to six times, so a server that does not answer is an error after eleven seconds."""
_TABLE_LIMITS: Final = {"timeout": "10s"}
"""Limits of a request for rows, which may be large."""
_PARTITION_ROWS: Final = 4096
"""Smaller tables are searched without an index."""
_PROBED: Final = 0.85
"""A search reads this fraction of the index's partitions. Below .8 it finds less than .95 of the nearest 200 of random vectors."""
_VECTORS_AT_ONCE: Final = 64
_IS_KEY: Final = {"lance-schema:unenforced-primary-key": "true"}
"""Marks a key column. If two commits insert the same key, Lance then repeats the second one as an update."""
_VERSIONS: Final = pa.schema(
    [
        pa.field("bundle_id", pa.string(), nullable=False, metadata=_IS_KEY),
        *(pa.field(name, pa.string()) for name in ("revision", *VectorTable)),
        pa.field("is_served", pa.bool_()),
    ]
)


class LanceDBStore(vs.VectorStore):
    """The Lance tables of a scene."""

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any], seconds: float | None) -> None:
        """Opens the folder. For S3, `options` hold endpoint, login and region. The rest is read from `AWS_*` variables."""
        is_s3, place = uri.scheme.endswith("+s3"), f"{uri.netloc}{uri.path}"
        given = {name: value for name, value in rename_s3_options(options, _S3_NAMES).items() if name in _S3_NAMES}
        if "aws_endpoint" in given:
            given.setdefault("aws_region", "us-east-1")
        self._passwords = [given[name] for name in _S3_NAMES[1:4] if name in given]
        self._scene, self._registry, self.where = scene, f"{scene}_versions", f"vector store {uri.scheme}://{place}"
        self._pattern = re.compile(f"{scene}_({'|'.join(VectorTable)})_[0-9a-f]{{14}}")
        self._limits, self.seconds = _TABLE_LIMITS if is_s3 else None, seconds
        with self.errors():
            self._database: Any = lancedb.connect(
                f"s3://{place}" if is_s3 else place,
                read_consistency_interval=dt.timedelta(0),
                storage_options={"allow_http": "true", **_LISTING_LIMITS, **given} if is_s3 else None,
            )

    def find_versions(self) -> dict[str, str]:
        return {version: row["revision"] for version, row in self._read_versions().items()}

    def find_served(self) -> str | None:
        # If two publishers served at once, both versions are marked until the next one is served.
        return max((version for version, row in self._read_versions().items() if row["is_served"]), default=None)

    def write(self, table: VectorTable, rows: Rows) -> str:
        name, schema = f"{self._scene}_{table}_{vs.new_token()}", _declare_keys(rows.schema, table)
        with self.errors():
            batches = (batch.cast(schema) for batch in rows.batches)
            content = pa.RecordBatchReader.from_batches(schema, batches)
            written = self._database.create_table(name, content, schema=schema, storage_options=self._limits)
            if table is VectorTable.ITEM and (partitions := rows.count // _PARTITION_ROWS):
                written.create_index(VECTORS[table], config=IvfFlat(distance_type="dot", num_partitions=partitions))
        return name

    def open(self, table: VectorTable, name: str) -> vs.StoredVectors:
        return _LanceVectors(self, table, name)

    def add(self, version: str, revision: str, drafts: Mapping[VectorTable, str]) -> None:
        for table, draft in drafts.items():
            self.open_table(table, draft)
        row = {"bundle_id": version, "revision": revision} | {str(table): drafts.get(table) for table in VectorTable}
        with self.errors():
            versions = self._database.create_table(self._registry, schema=_VERSIONS, exist_ok=True)
            _merge(versions, ["bundle_id"]).execute(pa.Table.from_pylist([row], schema=pa.schema(list(_VERSIONS)[:-1])))

    def serve(self, version: str) -> None:
        self._need(version)
        former = [name for name, row in self._read_versions().items() if row["is_served"] and name != version]
        self._mark([version], is_served=True)
        self._need(version)  # if it was removed meanwhile, the old versions stay served
        # Unmarks only versions served before this one: any that came meanwhile is newer. So one version stays in the end.
        self._mark(former, is_served=False)

    def update(self, version: str, revision: str, changes: Mapping[VectorTable, Changes]) -> None:
        self._set_revision(version, "")
        for table, change in changes.items():
            opened = self.open_table(table, version)
            with self.errors():
                merge = _merge(opened, KEYS[table])
                if len(change.gone):
                    merge = merge.when_not_matched_by_source_delete(_is_one_of(KEYS[table][0], change.gone))
                merge.execute(change.rows.cast(_declare_keys(change.rows.schema, table)))
        self._set_revision(version, revision)

    def find_removable(self, kept: Collection[str], before: float) -> list[str]:
        names, page = list[str](), ""
        with self.errors():
            while page is not None:
                part = self._database.list_tables(page_token=page or None)
                names += filter(self._pattern.fullmatch, part.tables)
                page = part.page_token
        versions = self._read_versions()
        needless = [version for version, row in versions.items() if version not in kept and not row["is_served"]]
        return needless + [name for name in names if name not in _find_used(versions) and vs.begun_at(name) < before]

    def remove(self, name: str) -> None:
        row = self._read_versions().get(name)
        with self.errors():
            if row is not None:
                versions = self._open(self._registry)
                versions.delete(f"bundle_id = {_write(name)} AND is_served IS NOT TRUE")
            tables = {name} if row is None else _find_used({name: row})
            for table in tables - _find_used(self._read_versions()):  # the tables of versions stay
                self._database.drop_table(table, ignore_missing=True)
            if row is not None:
                with suppress(RuntimeError):  # another publisher is removing it, too
                    versions.optimize(cleanup_older_than=dt.timedelta(days=1))

    def open_table(self, table: VectorTable, name: str) -> Any:
        """Returns the current table of a version or draft.

        Raises:
            PartitionMissingError: the version or draft does not have the table.
        """
        versions = self._read_versions()
        stored = versions[name][table] if name in versions else name
        with self.errors():
            opened = self._open(stored) if stored and self._pattern.fullmatch(stored) else None
        if opened is None:
            raise vs.missing_version(self.where, table, name, versions)
        return opened

    def errors(self) -> AbstractContextManager[None]:
        return vs.store_errors(self.where, self._passwords)

    def _read_versions(self) -> dict[str, dict[str, Any]]:
        with self.errors():
            opened = self._open(self._registry)
            rows = [] if opened is None else opened.to_arrow().sort_by("bundle_id").to_pylist()
        return {row["bundle_id"]: row for row in rows}

    def _set_revision(self, version: str, revision: str) -> None:
        self._need(version)
        with self.errors():
            self._open(self._registry).update(where=f"bundle_id = {_write(version)}", values={"revision": revision})

    def _mark(self, versions: Sequence[str], *, is_served: bool) -> None:
        if versions:
            with self.errors():
                where = _is_one_of("bundle_id", pa.array(versions, pa.string()))
                self._open(self._registry).update(where=where, values={"is_served": is_served})

    def _need(self, version: str) -> None:
        if version not in (versions := self._read_versions()):
            raise vs.missing_version(self.where, VectorTable.ITEM, version, versions)

    def _open(self, name: str) -> Any:
        """Returns a table. None: it does not exist, or its writer was killed before the first commit."""
        try:
            return self._database.open_table(name, storage_options=self._limits)
        except ValueError as error:
            if str(error) == f"Table '{name}' was not found":
                return None
            raise


class _LanceVectors(vs.StoredVectors):
    """The rows of a version or draft. Each answer is read from one commit."""

    def __init__(self, store: LanceDBStore, table: VectorTable, name: str) -> None:
        self._store, self._name, self._key = store, (table, name), KEYS[table][0]
        self._open()

    def count(self) -> int:
        count: int = self._ask(lambda: int(self._table.count_rows()))
        return count

    def read(self, ids: pa.Array) -> pa.Table:
        return self._ask(lambda: self._table.search().where(_is_one_of(self._key, ids)).to_arrow())

    def search(self, vectors: Vectors, k: int, *, is_exact: bool = False) -> list[Found]:
        lists, deadline = list[Found](), vs.Deadline(self._store.where, self._store.seconds)
        for start in range(0, len(vectors), _VECTORS_AT_ONCE):
            lists += self._ask(partial(self._search, vectors[start : start + _VECTORS_AT_ONCE], k, is_exact, deadline))
        return lists

    def _search(self, vectors: Vectors, k: int, is_exact: bool, deadline: vs.Deadline) -> list[Found]:
        deadline.check()
        # Lance returns 1 - product. Vectors are made longer, so that the product keeps its digits.
        scales = np.ldexp(np.float32(1), 20 - np.frexp(np.linalg.norm(vectors, axis=1))[1])
        query = self._table.search(vectors * scales[:, None], VECTORS[self._name[0]]).distance_type("dot").limit(k)
        query = query.maximum_nprobes(0).minimum_nprobes(self._probes).select([self._key, "_distance"])
        query = query.bypass_vector_index() if is_exact else query
        limit = None if self._store.seconds is None else dt.timedelta(seconds=self._store.seconds)
        rows = query.to_arrow(timeout=limit)
        numbers = rows.column("query_index") if "query_index" in rows.column_names else pa.repeat(0, len(rows))
        rows = rows.append_column("number", numbers).sort_by([("number", "ascending"), ("_distance", "ascending")])
        ids, scores = rows.column(self._key).combine_chunks(), 1 - rows.column("_distance").to_numpy()
        bounds = np.searchsorted(rows.column("number").to_numpy(), np.arange(len(vectors) + 1))
        spans = zip(bounds[:-1], bounds[1:], scales, strict=True)
        return [(ids[start:end], scores[start:end] / scale) for start, end, scale in spans]

    def _open(self) -> None:
        self._table = self._store.open_table(*self._name)
        self._probes = max(1, math.ceil(_PROBED * (self._table.count_rows() // _PARTITION_ROWS)))

    def _ask(self, read: Callable[[], Any]) -> Any:
        with self._store.errors():
            try:
                return read()
            except (RuntimeError, ValueError) as error:
                if "not found" not in str(error).lower():
                    raise
            self._open()  # the version was published again
            return read()


def _declare_keys(schema: pa.Schema, table: VectorTable) -> pa.Schema:
    return pa.schema(
        [field.with_nullable(False).with_metadata(_IS_KEY) if field.name in KEYS[table] else field for field in schema]
    )


def _find_used(versions: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {row[table] for row in versions.values() for table in VectorTable if row[table]}


def _merge(table: Any, keys: Sequence[str]) -> Any:
    return table.merge_insert(list(keys)).when_matched_update_all().when_not_matched_insert_all()


def _write(value: int | str) -> str:
    return f"CAST({value} AS BIGINT)" if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _is_one_of(column: str, ids: pa.Array) -> str:
    return f"{column} IN ({', '.join(map(_write, ids.to_pylist()))})" if len(ids) else "FALSE"
