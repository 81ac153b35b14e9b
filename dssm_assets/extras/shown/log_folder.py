"""The folder of the log: lists and reads the parts of its days, removes old days, and writes days again.

A day is written again once it has ended, as one part in place of tens of thousands, and without users who are to be forgotten.
The new part is there before the old ones go, so a reader may find a row twice, but never misses one.
"""

from __future__ import annotations

import hashlib
import posixpath
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
from dssm_assets.extras.shown.parts import part_schema
from dssm_assets.storage import layout
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.files import decoding_errors
from dssm_assets.storage.local_files import folder_lock, is_local
from dssm_assets.storage.locations import open_location

TEXT_PARTS: Final = part_schema(pa.string(), pa.string())
"""Parts of bundles with other types of ids have these columns in common."""
_READERS: Final = 8
_TOGETHER: Final = 64
"""Parts in memory at once."""
_ENDING: Final = ".parquet"


@dataclass(frozen=True)
class LogFolder:
    """The folder of a log inside its filesystem; `uri` names both."""

    fs: Any
    path: str
    uri: str

    def days(self) -> list[str]:
        """Returns the UTC days with a folder, ascending."""
        return sorted(filter(None, map(layout.ds_of_folder, map(str, self._list(self.path)))))

    def parts(self, days: Sequence[str]) -> dict[str, int]:
        """Returns path -> bytes of the parts of some UTC days."""
        listed = (info for ds in days for info in self._list(self._day(ds), detail=True))
        sizes = {str(info["name"]): int(info["size"]) for info in listed if str(info["name"]).endswith(_ENDING)}
        return {path: size for path, size in sorted(sizes.items()) if not posixpath.basename(path).startswith(("_", "."))}

    def fingerprint(self, days: Sequence[str]) -> str:
        """Returns a text that changes with the parts of some UTC days."""
        return hashlib.sha256(repr(list(self.parts(days).items())).encode()).hexdigest()[:16]

    def read(self, days: Sequence[str], span_ms: tuple[int, int], hidden: HiddenRows) -> Iterator[pa.Table]:
        """Yields the rows of some UTC days like TEXT_PARTS, those in a span of unix milliseconds, without hidden users.

        Raises:
            PartitionReplacedError: a cleanup wrote a day again meanwhile.
            SchemaError: a file is no part.
        """
        paths = list(self.parts(days))
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(paths), _TOGETHER):
                tables = pool.map(lambda path: self._read(path, span_ms), paths[start : start + _TOGETHER])
                yield hidden.drop_rows(pa.concat_tables(tables))

    def clean_day(self, ds: str, hidden: HiddenRows, *, has_ended: bool) -> None:
        """Writes a UTC day again without hidden users, or as one part once it has ended; if it is so already, does nothing."""
        with folder_lock(self._day(ds)) if is_local(self.fs) else nullcontext():
            paths, by_schema, has_theirs = list(self.parts([ds])), defaultdict[pa.Schema, list[str]](list), False
            for path in paths:
                with pq.ParquetFile(path, filesystem=self.fs) as part:
                    by_schema[part.schema_arrow.remove_metadata()].append(path)
                    has_theirs = has_theirs or bool(hidden.find(part.read([USER_ID]).column(0)).any())
            if not (has_theirs or (has_ended and len(by_schema) < len(paths))):
                return
            for schema, same in by_schema.items():
                name = f"part-{secrets.token_hex(8)}{_ENDING}"
                draft, target = (f"{self._day(ds)}/{mark}{name}" for mark in ("_", ""))
                with self.fs.open(draft, "wb") as handle, pq.ParquetWriter(handle, schema, compression="zstd") as writer:
                    for path in same:
                        rows = pq.read_table(path, filesystem=self.fs, partitioning=None)
                        writer.write_table(hidden.drop_rows(rows.replace_schema_metadata(None)))
                self.fs.mv(draft, target)
            self.fs.rm(paths)

    def remove_day(self, ds: str) -> None:
        self.fs.rm(self._day(ds), recursive=True)

    def _read(self, path: str, span_ms: tuple[int, int]) -> pa.Table:
        where = f"log of shown items, {path}"
        filters = [("time_ms", ">=", span_ms[0]), ("time_ms", "<=", span_ms[1])]
        with decoding_errors(where, "a part with the columns of the log", "remove or restore it"):
            try:
                rows = pq.read_table(path, filesystem=self.fs, columns=TEXT_PARTS.names, filters=filters, partitioning=None)
            except FileNotFoundError as error:
                raise PartitionReplacedError(Fault(where, "the part", "none", "read the day again")) from error
            return rows.cast(TEXT_PARTS)

    def _list(self, folder: str, *, detail: bool = False) -> Sequence[Any]:
        self.fs.invalidate_cache(folder)
        try:
            return list(self.fs.ls(folder, detail=detail))
        except FileNotFoundError:
            return []

    def _day(self, ds: str) -> str:
        return f"{self.path.rstrip('/')}/ds={ds}"


def open_log(loaded: LoadedConfig) -> LogFolder:
    """Opens the folder of `serving.shown`, which lies beside the bundles unless it is a path or URL of its own.

    Raises:
        ConfigError: there is no such section.
        InputError: the location cannot be used.
    """
    settings, where = loaded.config.serving.shown, "key serving.shown.folder"
    if settings is None:
        raise ConfigError(Fault("key serving.shown", "the log of what is shown", "none", "set it"))
    is_own = "://" in settings.folder or posixpath.isabs(settings.folder)
    uri = settings.folder if is_own else f"{layout.serving_root(loaded.root)}/{settings.folder}"
    return LogFolder(*open_location(uri, where, {} if is_own else loaded.config.storage.options), uri)
