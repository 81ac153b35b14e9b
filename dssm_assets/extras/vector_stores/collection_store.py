"""What stores of collections with aliases share: aliases name the tables of versions, and what is served.

<scene>_item_<token>                  a collection: a draft, until an alias names it
<scene>_item__<version>__<revision>   alias of the table of a version, with _ in place of -; that of items makes the version
<scene>_item                          the alias that other programs read
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import Fault, StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores.conditions import NO_CONDITION, Condition
from dssm_assets.extras.vector_stores.store import (
    INTEREST,
    KEYS,
    MODEL_DIGEST,
    VECTOR,
    Changes,
    Found,
    Rows,
    StoredVectors,
    VectorStore,
    begun_at,
    missing_version,
    new_token,
    store_errors,
)

T = TypeVar("T")
Hits = list[tuple[Sequence[Any], Sequence[float]]]
"""Ids and inner products of a list for each vector, best first."""

TIMEOUT_SECONDS: Final = 10
INDEX_SECONDS: Final = 3600
LINKS, LINK_CANDIDATES, SEARCH_CANDIDATES = 32, 256, 2048
"""Of the index, HNSW: links of a vector, and vectors that are compared to find them, and in a search at least."""
_WAIT_SECONDS: Final = 0.5
_TOKEN_LENGTH: Final = 14
_SENT_NUMBERS: Final = 2**18
"""In a request with rows, which is some megabytes long."""
_SENT_IDS: Final = 1000
_FOUND_IDS: Final = 4_000
"""In an answer to searches."""


@dataclass(frozen=True)
class _Version:
    revision: str
    tables: Mapping[VectorTable, str]


class CollectionStore(VectorStore):
    """The versions of a scene, by the calls of a client that a store adds."""

    def __init__(self, uri: SplitResult, scene: str, name: str, lock: AbstractContextManager[Any]) -> None:
        """Reads the URI.

        Args:
            name: of the store in errors.
            lock: held by calls.
        """
        self._heads = {f"{scene}_{table}": table for table in (VectorTable.USER, VectorTable.ITEM)}
        """Served alias -> table; a version is whole once its items are there, which are therefore last."""
        self.user, self.password, self._lock = unquote(uri.username or ""), unquote(uri.password or ""), lock
        self.address = uri.netloc.rpartition("@")[2] + uri.path.rstrip("/")
        self.url = f"http{'s' * uri.scheme.endswith('https')}://{self.address}"
        self.where = f"{name} store {self.address}"

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Returns what a call of the client returns; turns its errors into a StorageError."""
        with self._lock, store_errors(self.where, [self.password]):
            return function(*args, **options)

    @abstractmethod
    def list_names(self) -> list[str]:
        """Returns the names of all collections, also of other scenes."""

    @abstractmethod
    def find_aliases(self) -> dict[str, str]:
        """Returns alias -> collection."""

    @abstractmethod
    def change_aliases(self, created: Mapping[str, str], altered: Mapping[str, str], dropped: Sequence[str]) -> None:
        """Changes aliases -> collections in this order, in one step where the store has one."""

    @abstractmethod
    def create(self, table: VectorTable, collection: str, schema: pa.Schema) -> None:
        """Makes a collection without rows."""

    @abstractmethod
    def send_rows(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        """Writes some rows: new ones, or in place of those with the same key."""

    @abstractmethod
    def finish(self, collection: str) -> None:
        """Waits until a collection with all of its rows is ready, with its index."""

    @abstractmethod
    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        """Removes all rows of some ids."""

    @abstractmethod
    def drop(self, collection: str) -> None:
        """Removes a collection that no alias names."""

    @abstractmethod
    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        """Returns the rows of a collection."""

    def write(self, table: VectorTable, rows: Rows) -> str:
        name = f"{next(head for head, known in self._heads.items() if known is table)}_{new_token()}"
        self.create(table, name, rows.schema)
        for batch in rows.batches:
            self._send(table, name, pa.Table.from_batches([batch]), is_new=True)
        self.finish(name)
        return name

    def find_versions(self) -> dict[str, str]:
        return {name: version.revision for name, version in self._parse(self.find_aliases()).items()}

    def find_served(self) -> str | None:
        return self._find_served(self.find_aliases())

    def open(self, table: VectorTable, name: str) -> StoredVectors:
        versions = self._parse(self.find_aliases())
        if name in versions:
            collection = versions[name].tables.get(table)
        else:
            collection = name if name in self.find_collections(table) else None
        if collection is None:
            raise missing_version(self.where, table, name, versions)
        return self.open_collection(table, collection)

    def add(self, version: str, revision: str, drafts: Mapping[VectorTable, str]) -> None:
        aliases = self.find_aliases()
        owned = {head: f"{head}__{version}__".replace("-", "_") for head in self._heads}
        named = {owned[head] + revision.replace("-", "_"): table for head, table in self._heads.items()}
        before = [alias for alias in sorted(aliases) if alias.startswith(tuple(owned.values()))]
        if self._find_served(aliases) == version:
            named |= self._heads
            before += self._heads
        self._switch(aliases, before, {alias: drafts[table] for alias, table in named.items() if table in drafts})

    def serve(self, version: str) -> None:
        aliases = self.find_aliases()
        versions = self._parse(aliases)
        if version not in versions:
            raise missing_version(self.where, VectorTable.ITEM, version, versions)
        tables = versions[version].tables
        self._switch(aliases, [*self._heads], {head: tables[table] for head, table in self._heads.items() if table in tables})

    def update(self, version: str, revision: str, changes: Mapping[VectorTable, Changes]) -> None:
        versions = self._parse(self.find_aliases())
        tables = versions[version].tables if version in versions else {}
        for table, change in changes.items():
            if table not in tables:
                raise missing_version(self.where, table, version, versions)
            self._delete(table, tables[table], change.gone)
            self._send(table, tables[table], change.rows, is_new=False)
        self.add(version, revision, tables)

    def remove_users(self, user_ids: pa.Array) -> None:
        for collection in self.find_collections(VectorTable.USER):
            self._delete(VectorTable.USER, collection, user_ids)

    def find_removable(self, kept: Collection[str], before: float) -> list[str]:
        drafts = [name for table in VectorTable for name in self.find_collections(table) if begun_at(name) < before]
        aliases = self.find_aliases()
        versions, needed = self._parse(aliases), {*kept, self._find_served(aliases)}
        named = {collection for version in versions.values() for collection in version.tables.values()}
        named |= {collection for alias, collection in aliases.items() if alias in self._heads}
        return [name for name in versions if name not in needed] + [name for name in drafts if name not in named]

    def remove(self, name: str) -> None:
        aliases = self.find_aliases()
        version = self._parse(aliases).get(name)
        collections = list(version.tables.values()) if version else [name]
        named = [alias for alias, collection in sorted(aliases.items()) if collection in collections]
        if self._heads.keys() & set(named):
            return  # it is served by now
        self.change_aliases({}, {}, named)
        for collection in collections:
            self.drop(collection)

    def find_collections(self, table: VectorTable) -> list[str]:
        """Returns the collections of a table of this scene."""
        parts = [name.rpartition("_") for name in self.list_names()]
        return ["_".join((head, end)) for head, _, end in parts if self._heads.get(head) is table and len(end) == _TOKEN_LENGTH]

    def wait(self, collection: str, is_ready: Callable[[], bool]) -> None:
        """Waits until an index is built."""
        end = time.monotonic() + INDEX_SECONDS
        while not is_ready():
            if time.monotonic() > end:
                remedy = "see the log of the store, then run again"
                raise StorageError(
                    str(Fault(f"{self.where}, {collection}", f"an index within {INDEX_SECONDS} s", "none", remedy))
                )
            time.sleep(_WAIT_SECONDS)

    def _send(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        step = max(1, _SENT_NUMBERS // (rows.schema.field(VECTOR).type.list_size + rows.num_columns))
        for start in range(0, rows.num_rows, step):
            self.send_rows(table, collection, rows.slice(start, step), is_new=is_new)

    def _delete(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        for part in _split(ids):
            self.delete_rows(table, collection, part)

    def _parse(self, aliases: Mapping[str, str]) -> dict[str, _Version]:
        """Returns the versions; of two revisions of one, which two publishers have added, the last by name."""
        found: dict[tuple[str, str], dict[VectorTable, str]] = {}
        for alias, collection in sorted(aliases.items()):
            head, *names = alias.rsplit("__", 2)
            if head in self._heads and len(names) == 2:
                version, revision = (name.replace("_", "-") for name in names)
                found.setdefault((version, revision), {})[self._heads[head]] = collection
        return {
            version: _Version(revision, tables) for (version, revision), tables in found.items() if VectorTable.ITEM in tables
        }

    def _find_served(self, aliases: Mapping[str, str]) -> str | None:
        served = next(aliases.get(head) for head, table in self._heads.items() if table is VectorTable.ITEM)
        versions = self._parse(aliases).items()
        return next((name for name, version in versions if version.tables[VectorTable.ITEM] == served), None)

    def _switch(self, aliases: Mapping[str, str], before: Collection[str], after: Mapping[str, str]) -> None:
        created = {alias: collection for alias, collection in after.items() if alias not in aliases}
        altered = {alias: collection for alias, collection in after.items() if aliases.get(alias, collection) != collection}
        self.change_aliases(created, altered, [alias for alias in before if alias in aliases and alias not in after])


class CollectionVectors(StoredVectors):
    """The rows of a collection, by the calls of a client that a store adds."""

    def __init__(self, table: VectorTable, width: int, id_type: pa.DataType) -> None:
        self.key, self._width = KEYS[table][0], width
        self._types = {self.key: id_type, INTEREST: pa.int32(), MODEL_DIGEST: pa.string()}
        self._names = [*KEYS[table], MODEL_DIGEST]

    @abstractmethod
    def find_rows(self, ids: pa.Array, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yields the rows of some ids: some columns, and vectors."""

    @abstractmethod
    def write_condition(self, condition: Condition) -> Any:
        """Returns a condition in the words of the store.

        Raises:
            UnsupportedConditionError: it has none.
        """

    @abstractmethod
    def find_nearest(self, vectors: Vectors, k: int, wanted: Any, *, is_exact: bool) -> Hits:
        """Returns up to k rows for each vector."""

    def read(self, ids: pa.Array) -> pa.Table:
        rows = [row for part in _split(ids) for row in self.find_rows(part, self._names)]
        columns = {name: pa.array([row[name] for row in rows], self._types[name]) for name in self._names}
        vectors = pa.array(np.array([row[VECTOR] for row in rows], np.float32).reshape(-1))
        return pa.table({**columns, VECTOR: pa.FixedSizeListArray.from_arrays(vectors, self._width)})

    def search(self, vectors: Vectors, k: int, condition: Condition = NO_CONDITION, *, is_exact: bool = False) -> list[Found]:
        wanted, step = self.write_condition(condition), max(1, _FOUND_IDS // k)
        parts = [vectors[start : start + step] for start in range(0, len(vectors), step)]
        return [found for part in parts for found in self._search(part, k, wanted, is_exact=is_exact)]

    def _search(self, vectors: Vectors, k: int, wanted: Any, *, is_exact: bool) -> list[Found]:
        """Returns a list for each vector; where the index finds too few rows, all are compared."""
        found = self.find_nearest(vectors, k, wanted, is_exact=is_exact)
        if not is_exact and any(len(ids) < k for ids, _ in found):
            found = self.find_nearest(vectors, k, wanted, is_exact=True)
        return [(pa.array(ids, self._types[self.key]), np.array(scores, np.float32)) for ids, scores in found]


def _split(ids: pa.Array) -> list[pa.Array]:
    return [ids[start : start + _SENT_IDS] for start in range(0, len(ids), _SENT_IDS)]
