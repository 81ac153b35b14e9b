"""The folder of the log: lists, reads and cleans the parts of its days; the hooks of cleanups and of requests to forget users.

In a cleanup the new part is there before the old ones go, so a reader may find a row twice, but never misses one.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.errors import ConfigError, Fault, PartitionReplacedError
from dssm_assets.core.hidden_rows import HiddenRows
from dssm_assets.defs.scene import today_in
from dssm_assets.extras.shown.log import part_schema, shown_location
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.files import decoding_errors
from dssm_assets.storage.local_files import folder_lock, is_local
from dssm_assets.storage.locations import open_location

TEXT_PARTS: Final = part_schema(pa.string(), pa.string())
"""What parts with other types of ids are read as."""
_ASSET: Final = "shown"
_READERS, _TOGETHER = 8, 64
"""Threads, and parts in memory at once."""


@dataclass(frozen=True)
class LogFolder:
    """The folder of a log inside its filesystem; `uri` names both."""

    fs: Any
    path: str
    uri: str

    def days(self) -> list[str]:
        """Returns the UTC days with a folder, ascending."""
        return sorted(filter(None, (layout.ds_of_folder(info["name"]) for info in self._list(self.path))))

    def folder(self, ds: str) -> str:
        return f"{self.path.rstrip('/')}/ds={ds}"

    def parts(self, days: Sequence[str]) -> dict[str, int]:
        """Returns path -> bytes of the parts of some UTC days."""
        found = {info["name"]: info["size"] for ds in days for info in self._list(self.folder(ds))}
        return {path: found[path] for path in sorted(found) if re.search(r"/[^/_.][^/]*\.parquet$", path)}

    def fingerprint(self, days: Sequence[str]) -> str:
        """Returns a text that changes with the parts of some UTC days."""
        return hashlib.sha256(repr(self.parts(days)).encode()).hexdigest()[:16]

    def read(self, days: Sequence[str], hidden: HiddenRows) -> Iterator[pa.Table]:
        """Yields the rows of some UTC days like TEXT_PARTS, without hidden users.

        Raises:
            PartitionReplacedError: a cleanup wrote a day again meanwhile.
            SchemaError: a file is no part.
        """
        paths = list(self.parts(days))
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(paths), _TOGETHER):
                tables = pool.map(self._read, paths[start : start + _TOGETHER])
                yield hidden.drop_rows(pa.concat_tables(table.cast(TEXT_PARTS) for table in tables))

    def clean_day(self, ds: str, hidden: HiddenRows, *, has_ended: bool) -> None:
        """Writes a UTC day again without hidden users, and as one part per type of ids once it has ended (of tens of thousands)."""
        with folder_lock(self.folder(ds)) if is_local(self.fs) else nullcontext():
            old, kept, has_theirs = list(self.parts([ds])), defaultdict[pa.Schema, list[str]](list), False
            for path in old:
                ids = self._read(path, [USER_ID]).column(0)
                kept[ids.type].append(path)
                has_theirs = has_theirs or bool(hidden.find(ids).any())
            if not has_theirs and (not has_ended or len(kept) == len(old)):
                return
            for same in kept.values():
                draft, schema = f"{self.folder(ds)}/_{secrets.token_hex(16)}.parquet", self._read(same[0]).schema
                with self.fs.open(draft, "wb") as handle, pq.ParquetWriter(handle, schema, compression="zstd") as writer:
                    for path in same:
                        writer.write_table(hidden.drop_rows(self._read(path)))
                self.fs.mv(draft, "/".join(draft.rsplit("/_", 1)))
            self.fs.rm(old)

    def _read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        where = f"log of shown items, {path}"
        with decoding_errors(where, "a part with the columns of the log", "remove or restore it"):
            try:
                with self.fs.open(path, "rb") as handle:
                    return pq.ParquetFile(handle).read(columns).select(columns or TEXT_PARTS.names)
            except FileNotFoundError as error:
                raise PartitionReplacedError(Fault(where, "the part", "none", "read the day again")) from error

    def _list(self, folder: str) -> list[Any]:
        self.fs.invalidate_cache(folder)
        try:
            return list(self.fs.ls(folder, detail=True))
        except FileNotFoundError:
            return []


def open_log(loaded: LoadedConfig) -> LogFolder:
    """Opens the folder of `serving.shown`.

    Raises:
        ConfigError: there is no such section.
        InputError: the location cannot be used.
    """
    shown = loaded.config.serving.shown
    if shown is None:
        raise ConfigError(Fault("key serving.shown", "the log of what is shown", "none", "set it"))
    uri = shown_location(shown.folder, layout.serving_root(loaded.root))
    options = {} if uri == shown.folder else loaded.config.storage.options
    return LogFolder(*open_location(uri, "key serving.shown.folder", options), uri)


def on_cleaned(workspace: Workspace, before: float, *, removes: bool) -> set[str]:
    """Removes days older than `serving.shown.keep_days` of the log and the asset, and rows of hidden users; returns no files.

    Days count back from the log's newest day, at most today: clocks that jump remove nothing.
    """
    settings = workspace.config.serving.shown
    if settings is None or not removes:
        return set()
    log, store, today = open_log(workspace.loaded), workspace.tables.partitions, today_in("UTC").isoformat()
    hidden, days = store.hidden.read(), log.days()
    newest = max((ds for ds in days if ds <= today), default=today)
    first = max(day_before(newest, settings.keep_days - 1), hidden.first_day)
    for ds in days:
        if ds < first:
            log.fs.rm(log.folder(ds), recursive=True)
        else:
            log.clean_day(ds, hidden, has_ended=ds < today)
    for ds in store.days(_ASSET):
        if ds < first:
            store.remove(_ASSET, ds)
    return set()


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the folders of logs that the configuration no longer names."""
    store = workspace.tables.partitions
    noted = {f"log of shown items {one.facts['log']}" for one in store.find_days(_ASSET, store.days(_ASSET)).values()}
    is_configured = workspace.config.serving.shown is not None
    return sorted(noted - ({f"log of shown items {open_log(workspace.loaded).uri}"} if is_configured else set()))
