"""What stores of collections with aliases share: aliases name the tables of versions, and what is served.

<scene>_item_<token>                  a collection: a draft, until an alias names it
<scene>_item__<version>__<revision>   alias of the table of a version, with _ in place of -; that of items makes the version
<scene>_item                          the alias that other programs read
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.extras.vector_stores.store import Changes, StoredVectors, VectorStore, begun_at, missing_version

_TOKEN_LENGTH: Final = 14


@dataclass(frozen=True)
class _Version:
    revision: str
    tables: Mapping[VectorTable, str]


class CollectionStore(VectorStore):
    """The versions of a scene, by the calls of a client that a store adds."""

    def __init__(self, scene: str) -> None:
        self._heads = {f"{scene}_{table}": table for table in (VectorTable.USER, VectorTable.ITEM)}
        """Served alias -> table; a version is whole once its items are there, which are therefore last."""

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
    def upsert_rows(self, table: VectorTable, collection: str, rows: pa.Table) -> None:
        """Writes rows, in place of those with the same key."""

    @abstractmethod
    def delete_rows(self, table: VectorTable, collection: str, ids: pa.Array) -> None:
        """Removes all rows of some ids."""

    @abstractmethod
    def drop(self, collection: str) -> None:
        """Removes a collection that no alias names."""

    @abstractmethod
    def open_collection(self, table: VectorTable, collection: str) -> StoredVectors:
        """Returns the rows of a collection."""

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
            self.delete_rows(table, tables[table], change.gone)
            self.upsert_rows(table, tables[table], change.rows)
        self.add(version, revision, tables)

    def remove_users(self, user_ids: pa.Array) -> None:
        for collection in self.find_collections(VectorTable.USER):
            self.delete_rows(VectorTable.USER, collection, user_ids)

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
