"""Common code of stores with collections and aliases. Aliases mark the tables of each version, and the served tables.

    <scene>_item_<token>                  a collection: a draft, until an alias of a version points to it
    <scene>_item__<version>               alias through which readers of a version find its collection
    <scene>_item__<version>__<revision>   alias that records the version's revision (`_user` if the version has no items)
    <scene>_item                          alias for other programs

Alias names have _ in place of -.
"""

from __future__ import annotations

import re
import time
import uuid
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
from dssm_assets.extras.vector_stores import store as vs

T = TypeVar("T")
Hits = list[tuple[Sequence[Any], Sequence[float]]]
"""For each vector: the ids and the inner products of its list, best first."""

TIMEOUT_SECONDS: Final = 10
INDEX_SECONDS: Final = 3600
LINKS, LINK_CANDIDATES, SEARCH_CANDIDATES = 32, 256, 2048
"""Settings of the HNSW index: links per vector, candidates compared to choose them, and least candidates of a search."""
_WAIT_SECONDS: Final = 0.5
_SENT_NUMBERS, _SENT_ROWS = 2**18, 1000
"""A request with rows has at most so many numbers and so many rows: some megabytes."""
_FOUND_IDS: Final = 4_000
"""An answer to searches has at most so many ids."""


@dataclass(frozen=True)
class _Version:
    revision: str
    tables: Mapping[VectorTable, str]


class CollectionStore(vs.VectorStore):
    """Base of a store with collections and aliases, for one scene. A subclass adds the calls of its client."""

    def __init__(
        self, uri: SplitResult, scene: str, name: str, lock: AbstractContextManager[Any], seconds: float | None
    ) -> None:
        """Parses the URI. Errors show the store's `name`. Each call of the client holds `lock`."""
        self.seconds, self.call_seconds = seconds, TIMEOUT_SECONDS if seconds is None else min(seconds, TIMEOUT_SECONDS)
        self._heads = {table: f"{scene}_{table}" for table in (VectorTable.USER, VectorTable.ITEM)}
        """Table -> alias of the served collection. Items come last: their alias completes a version."""
        self.user, self.password, self._lock = unquote(uri.username or ""), unquote(uri.password or ""), lock
        self.address = uri.netloc.rpartition("@")[2] + uri.path.rstrip("/")
        self.url = f"http{'s' * uri.scheme.endswith('https')}://{self.address}"
        self.where = f"vector store {name} {self.address}"

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Calls the client and turns its errors into a StorageError."""
        with self._lock, vs.store_errors(self.where, [self.password]):
            return function(*args, **options)

    @abstractmethod
    def list_names(self) -> list[str]:
        """Returns the names of all collections, also of other scenes."""

    @abstractmethod
    def find_aliases(self) -> dict[str, str]:
        """Returns alias -> collection."""

    @abstractmethod
    def change_aliases(self, after: Mapping[str, str], dropped: Sequence[str]) -> None:
        """Creates or moves the aliases `after` (alias -> collection), then drops others. In one step if the store can."""

    @abstractmethod
    def create(self, table: VectorTable, collection: str, schema: pa.Schema) -> None:
        """Creates an empty collection."""

    @abstractmethod
    def send_rows(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        """Writes some rows. They replace rows with the same key."""

    @abstractmethod
    def finish(self, table: VectorTable, collection: str) -> None:
        """Waits until a collection has stored all rows and built its index."""

    @abstractmethod
    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        """Removes all rows of some ids."""

    @abstractmethod
    def drop(self, collection: str) -> None:
        """Removes a collection that no alias points to."""

    @abstractmethod
    def open_collection(self, table: VectorTable, collection: str) -> vs.StoredVectors:
        """Returns the rows of a collection or of an alias."""

    def write(self, table: VectorTable, rows: vs.Rows) -> str:
        name = f"{self._heads[table]}_{vs.new_token()}"
        self.create(table, name, rows.schema)
        for batch in rows.batches:
            self._send(table, name, pa.Table.from_batches([batch]), is_new=True)
        self.finish(table, name)
        return name

    def find_versions(self) -> dict[str, str]:
        return {name: version.revision for name, version in self._parse(self.find_aliases()).items()}

    def find_served(self) -> str | None:
        return self._find_served(self.find_aliases())

    def open(self, table: VectorTable, name: str) -> vs.StoredVectors:
        versions = self._parse(self.find_aliases())
        if name in versions and table in versions[name].tables:
            return self.open_collection(table, self._name_alias(table, name))
        if name in self._find_collections(table):
            return self.open_collection(table, name)
        raise vs.missing_version(self.where, table, name, versions)

    def add(self, version: str, revision: str, drafts: Mapping[VectorTable, str]) -> None:
        aliases = self.find_aliases()
        names = {table: self._name_alias(table, version) for table in self._heads}
        starts, main = tuple(f"{name}__" for name in names.values()), _choose_main(drafts)
        before = [alias for alias in sorted(aliases) if f"{alias}__".startswith(starts)]
        after = {self._name_alias(main, f"{version}__{revision}"): drafts[main]}
        after |= {names[table]: drafts[table] for table in names if table in drafts}
        if self._find_served(aliases) == version:
            before += [head for head in self._heads.values() if head in aliases]
            after |= {head: drafts[table] for table, head in self._heads.items() if table in drafts}
        self.change_aliases(after, [alias for alias in before if alias not in after])

    def serve(self, version: str) -> None:
        aliases = self.find_aliases()
        tables = self._find_tables(aliases, version)
        after = {head: tables[table] for table, head in self._heads.items() if table in tables}
        self.change_aliases(after, [head for head in self._heads.values() if head in aliases and head not in after])

    def update(self, version: str, revision: str, changes: Mapping[VectorTable, vs.Changes]) -> None:
        aliases = self.find_aliases()
        tables = self._find_tables(aliases, version, *changes)
        starts = tuple(f"{self._name_alias(table, version)}__" for table in self._heads)
        self.change_aliases({}, [alias for alias in sorted(aliases) if alias.startswith(starts)])
        for table, change in changes.items():
            for part in _split(change.gone):
                self.delete_rows(table, tables[table], part)
            self._send(table, tables[table], change.rows, is_new=False)
        self.add(version, revision, tables)

    def find_removable(self, kept: Collection[str], before: float) -> list[str]:
        drafts = [name for table in VectorTable for name in self._find_collections(table) if vs.begun_at(name) < before]
        aliases = self.find_aliases()
        needed, read = {*kept, self._find_served(aliases)}, self._find_read(aliases)
        return [name for name in self._parse(aliases) if name not in needed] + [name for name in drafts if name not in read]

    def remove(self, name: str) -> None:
        aliases = self.find_aliases()
        version = self._parse(aliases).get(name)
        # By now a draft may have become a version, or a version may be served.
        read = {aliases.get(head) for head in self._heads.values()} if version else self._find_read(aliases)
        removed = set(version.tables.values()) if version else {name} & set(self.list_names())
        if removed and not removed & read:
            self.change_aliases({}, [alias for alias, collection in sorted(aliases.items()) if collection in removed])
            for collection in removed - set(self.find_aliases().values()):
                self.drop(collection)

    def wait(self, collection: str, is_ready: Callable[[], bool]) -> None:
        """Waits until an index is built."""
        end = time.monotonic() + INDEX_SECONDS
        while not is_ready():
            time.sleep(_WAIT_SECONDS)
            if time.monotonic() > end:
                where, remedy = f"{self.where}, {collection}", "see the log of the store, then run again"
                raise StorageError(str(Fault(where, f"an index within {INDEX_SECONDS} s", "none", remedy)))

    def _find_collections(self, table: VectorTable) -> list[str]:
        return [name for name in self.list_names() if re.fullmatch(rf"{self._heads[table]}_[0-9a-f]{{14}}", name)]

    def _name_alias(self, table: VectorTable, version: str) -> str:
        return f"{self._heads[table]}__{version}".replace("-", "_")

    def _send(self, table: VectorTable, collection: str, rows: pa.Table, *, is_new: bool) -> None:
        width = rows.schema.field(vs.VECTORS[table]).type.list_size + rows.num_columns
        step = min(max(1, _SENT_NUMBERS // width), _SENT_ROWS)
        for start in range(0, rows.num_rows, step):
            self.send_rows(table, collection, rows.slice(start, step), is_new=is_new)

    def _parse(self, aliases: Mapping[str, str]) -> dict[str, _Version]:
        """Returns the versions by name. The revision is "" if a publisher was killed before it recorded it."""
        found: dict[str, dict[VectorTable, str]] = {}
        revisions: dict[tuple[str, str], str] = {}
        for table, head in self._heads.items():
            for alias, collection in sorted(aliases.items()):
                if alias.startswith(f"{head}__"):
                    version, _, revision = alias.removeprefix(f"{head}__").replace("_", "-").partition("--")
                    if revision:
                        revisions[version, collection] = revision
                    else:
                        found.setdefault(version, {})[table] = collection
        mains = {name: tables[_choose_main(tables)] for name, tables in found.items()}
        versions = {name: _Version(revisions.get((name, mains[name]), ""), tables) for name, tables in found.items()}
        return {name: one for name, one in versions.items() if one.revision or VectorTable.ITEM in one.tables}

    def _find_tables(self, aliases: Mapping[str, str], version: str, *needed: VectorTable) -> Mapping[VectorTable, str]:
        versions = self._parse(aliases)
        if version not in versions or not versions[version].tables.keys() >= set(needed):
            raise vs.missing_version(self.where, [*needed, VectorTable.ITEM][0], version, versions)
        return versions[version].tables

    def _find_read(self, aliases: Mapping[str, str]) -> set[str]:
        of_versions = {collection for version in self._parse(aliases).values() for collection in version.tables.values()}
        return of_versions | {aliases[head] for head in self._heads.values() if head in aliases}

    def _find_served(self, aliases: Mapping[str, str]) -> str | None:
        served = {table: aliases[head] for table, head in self._heads.items() if head in aliases}
        versions = self._parse(aliases).items() if served else ()
        main = _choose_main(served)
        return next((name for name, version in versions if version.tables.get(main) == served[main]), None)


class CollectionVectors(vs.StoredVectors):
    """The rows of a collection. A subclass adds the calls of its client."""

    def __init__(self, store: CollectionStore, table: VectorTable, width: int, id_type: pa.DataType) -> None:
        self._limits = store.where, store.seconds
        self.key, self.vectors, self._width = vs.KEYS[table][0], vs.VECTORS[table], width
        self._types = {self.key: id_type, vs.INTEREST: pa.int32(), vs.MODEL_DIGEST: pa.string()}
        self._names = [*vs.KEYS[table], vs.MODEL_DIGEST]

    @abstractmethod
    def find_rows(self, ids: pa.Array, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yields the rows of some ids: some columns, and the vectors."""

    @abstractmethod
    def find_nearest(self, vectors: Vectors, k: int, deadline: vs.Deadline, *, is_exact: bool) -> Hits:
        """Returns up to k rows for each vector. Starts no request after the deadline."""

    def read(self, ids: pa.Array) -> pa.Table:
        rows = [row for part in _split(ids) for row in self.find_rows(part, self._names)]
        columns = {name: pa.array([row[name] for row in rows], self._types[name]) for name in self._names}
        vectors = pa.array(np.array([row[self.vectors] for row in rows], np.float32).reshape(-1))
        return pa.table({**columns, self.vectors: pa.FixedSizeListArray.from_arrays(vectors, self._width)})

    def search(self, vectors: Vectors, k: int, *, is_exact: bool = False) -> list[vs.Found]:
        lists: Hits = []
        step, deadline = max(1, _FOUND_IDS // k), vs.Deadline(*self._limits)
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            found = self.find_nearest(part, k, deadline, is_exact=is_exact)
            if not is_exact and any(len(ids) < k for ids, _ in found):  # the index may have missed rows
                found = self.find_nearest(part, k, deadline, is_exact=True)
            lists += found
        return [(pa.array(ids, self._types[self.key]), np.array(scores, np.float32)) for ids, scores in lists]


def _choose_main(tables: Collection[VectorTable]) -> VectorTable:
    return VectorTable.ITEM if VectorTable.ITEM in tables else VectorTable.USER


def make_point_ids(keys: pa.Table) -> list[Any]:
    """Returns a digest of each row's key, in a form that every store accepts as an id."""
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, repr(key))) for key in zip(*keys.to_pydict().values(), strict=True)]


def _split(ids: pa.Array) -> list[pa.Array]:
    return [ids[start : start + _SENT_ROWS] for start in range(0, len(ids), _SENT_ROWS)]
