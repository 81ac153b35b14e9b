"""Lists of the shop that apply without a new bundle: blocked items are never shown; with a stock list, only its items are.

A list is a text file, one item id per line, at a path or fsspec URL; in the bundles' bucket it is read with their
credentials. It is read again when it changes. Write it under another name and rename it, so that nobody reads half a file.
If a list cannot be used or read in time, the former one stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import fsspec.asyn
import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import Mask
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.service.engine.id_rows import IdRows
from dssm_assets.storage.local_files import is_local
from dssm_assets.storage.locations import location_errors, open_location

READ_SECONDS: Final = 10.0
"""Time in which a list is read; its host may be silent."""
MAX_LIST_BYTES: Final = 1 << 26
"""Of a list, which is in memory as a whole; its host may send without end."""
_BLOCKED, _STOCKED = "blocked items", "stocked items"


class _Content(NamedTuple):
    """Ids, and the mark that changes with the file; None where the filesystem has no marks."""

    ids: pa.Array
    mark: str | None


class ShopLists:
    """The blocked and the stock list; either may be absent."""

    def __init__(
        self,
        blocked: str | None = None,
        stocked: str | None = None,
        root: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the lists; an InputError has the faults of both.

        Args:
            blocked, stocked: path or URL of each.
            root: root of the bundles. A list in its bucket is read with `options`, another one as the environment says.
        """
        self._uris = {name: uri for name, uri in ((_STOCKED, stocked), (_BLOCKED, blocked)) if uri is not None}
        self._files = {
            name: open_location(uri, name, (options or {}) if _find_bucket(uri) == _find_bucket(root) else {})
            for name, uri in self._uris.items()
        }
        self._contents: dict[str, _Content] = {}
        self._contents = self._read()

    def refresh(self, items: IdRows) -> bool:
        """Reads changed lists again; returns whether any has changed. After an error all stay as they were.

        Raises:
            InputError: a list cannot be used for a bundle with these items.
        """
        contents = self._read()
        has_changed = any(not one.ids.equals(self._contents[name].ids) for name, one in contents.items())
        if has_changed:
            self.find_shown(items, contents)
        self._contents = contents
        return has_changed

    def find_shown(self, items: IdRows, contents: Mapping[str, _Content] | None = None) -> Mask | None:
        """Returns a mask of the items that may be shown, bool [I]; None: all. A line without an id raises an InputError."""
        contents = self._contents if contents is None else contents
        if not contents:
            return None
        shown = np.full(len(items), _STOCKED not in contents)
        for name, content in contents.items():
            try:
                ids = content.ids.cast(pa.int64()) if items.is_integer else content.ids
            except pa.ArrowInvalid as error:
                where = f"{name} {self._uris[name]}"
                raise InputError(Fault(where, "one integer item id per line", str(error)[:80], "correct the list")) from error
            rows = items.rows_of(pa.chunked_array([ids]))
            shown[rows[rows >= 0]] = name == _STOCKED
        return shown

    def _read(self) -> dict[str, _Content]:
        found, faults = {}, []
        for name in self._uris:
            try:
                found[name] = self._read_list(name)
            except InputError as error:
                faults += error.faults
        InputError.raise_if(faults)
        return found

    def _read_list(self, name: str) -> _Content:
        """Reads a list again if its file has changed."""
        uri, (fs, path), before = self._uris[name], self._files[name], self._contents.get(name)
        where = f"{name} {uri}"
        with location_errors(uri, name):
            fs.invalidate_cache()
            is_web = bool({"http", "https"} & {*((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)})
            try:
                mark = None if is_web else str(fs.info(path, **_limit_time(fs)))
                if before is not None and mark is not None and mark == before.mark:
                    return before
                if is_local(fs) and not Path(path).is_file():
                    raise InputError(Fault(where, "a file", "a folder, pipe or device", "write the list into a file"))
                content = _read_start(fs, path)
            except TimeoutError as error:
                expected, remedy = f"its content in {READ_SECONDS:g} seconds", "see why its host does not answer"
                raise InputError(Fault(where, expected, "none", remedy)) from error
        if len(content) > MAX_LIST_BYTES:
            expected = f"at most {MAX_LIST_BYTES >> 20} MiB"
            raise InputError(Fault(where, expected, "more", "list the ids of this bundle's items alone, one per line"))
        try:
            lines = [line for text in content.decode("utf-8-sig").splitlines() if (line := text.strip())]
        except UnicodeDecodeError as error:
            got = f"byte {error.start} that is not"
            raise InputError(Fault(where, "text in UTF-8, one item id per line", got, "write the list again")) from error
        if not lines and name == _STOCKED:
            raise InputError(Fault(where, "at least one item id", "none", "list the items, or serve without the list"))
        return _Content(pa.array(lines, pa.string()), mark)


def _read_start(fs: Any, path: str) -> Any:
    """Returns the bytes of a list, at most one more than it may have."""
    if fs.async_impl:
        with suppress(NotImplementedError):  # without streams they ask their store for the range
            return fsspec.asyn.sync(fs.loop, _stream_start, fs, path)
    return fs.cat_file(path, start=0, end=MAX_LIST_BYTES + 1, **_limit_time(fs))


def _limit_time(fs: Any) -> dict[str, float]:
    return {"timeout": READ_SECONDS} if fs.async_impl else {}


async def _stream_start(fs: Any, path: str) -> bytearray:
    """As `_read_start`; the host may send without end."""
    content = bytearray()
    async with asyncio.timeout(READ_SECONDS):
        file = await fs.open_async(path, "rb", size=0)  # the size is not asked for
        try:
            while len(content) <= MAX_LIST_BYTES and (part := await file.read(MAX_LIST_BYTES + 1 - len(content))):
                content += part
        finally:
            await file.close()
    return content


def _find_bucket(uri: str) -> tuple[str, str] | None:
    """Returns protocol and bucket of a URL, None for a path."""
    protocol, found, rest = uri.partition("://")
    return (protocol, rest.partition("/")[0]) if found else None
