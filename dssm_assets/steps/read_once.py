"""Keeps in memory what a step makes of a stored table, as long as its days share the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore

_Made = TypeVar("_Made")
_Arguments = ParamSpec("_Arguments")


class ReadOnce:
    """Holds one result per table and function. Consecutive days with equal content share it.

    Unpickling returns the one instance of the receiving process. So each worker reads a table once, and no rows are sent.
    """

    def __init__(self, tables: TableStore) -> None:
        self._tables = tables
        self._made: dict[tuple[str, Callable[..., Any]], tuple[Any, Any]] = {}

    def get(
        self,
        manifest: Manifest,
        make: Callable[Concatenate[TableStore, Manifest, _Arguments], _Made],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Made:
        """Returns `make(tables, manifest, *arguments)`, made again only if the content or an argument differs from the last call's."""
        key, state = (manifest.asset, make), (manifest.digest, arguments, named)
        if key not in self._made or self._made[key][0] != state:
            self._made.pop(key, None)  # two tables at once may not fit a worker's memory
            self._made[key] = state, make(self._tables, manifest, *arguments, **named)
        made: _Made = self._made[key][1]
        return made

    def __reduce__(self) -> tuple[Callable[..., ReadOnce], tuple[str, Mapping[str, Any]]]:
        store = self._tables.partitions
        return _instance_of_process, (store.fs.unstrip_protocol(store.root), store.options)


_INSTANCES: Final[dict[str, ReadOnce]] = {}
"""The instances of this process by address of the store."""


def _instance_of_process(url: str, options: Mapping[str, Any]) -> ReadOnce:
    if url not in _INSTANCES:
        _INSTANCES[url] = ReadOnce(TableStore(PartitionStore(url, options)))
    return _INSTANCES[url]
