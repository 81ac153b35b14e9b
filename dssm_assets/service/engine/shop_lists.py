"""Lists of the shop, which apply without a new bundle. Blocked items are never shown. With a stock list, only its items are shown.

A list is a text file with one item id per line, at a path or fsspec URL. In the bundles' bucket it is read with the bundles'
credentials. It is read again when it changes. Write it under another name and rename it, so that nobody reads half a file.
If a list cannot be used or read in time, the former list stays in force.
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
"""Time limit for reading a list, because its host may be silent."""
MAX_LIST_BYTES: Final = 1 << 26
"""Most bytes of a list. A list is in memory as a whole, and its host might send without end."""
_BLOCKED, _STOCKED = "blocked items", "stocked items"


class _Content(NamedTuple):
    """The ids of a list, and a mark that changes with the file (None if the filesystem has no marks)."""

    ids: pa.Array
    mark: str | None


class ShopLists:
    """The list of blocked items and the stock list. Either may be absent."""

    def __init__(
        self,
        blocked: str | None = None,
        stocked: str | None = None,
        root: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the lists. Raises an InputError with the faults of both.

        Args:
            blocked, stocked: path or URL of each list.
            root: root of the bundles. A list in the same bucket is read with `options`, other lists with the environment's settings.
        """
        self._uris = {name: uri for name, uri in ((_STOCKED, stocked), (_BLOCKED, blocked)) if uri is not None}
        self._files = {
            name: open_location(uri, name, (options or {}) if _find_bucket(uri) == _find_bucket(root) else {})
            for name, uri in self._uris.items()
        }
        self._contents: dict[str, _Content] = {}
        self._contents = self._read()

    def refresh(self, items: IdRows) -> bool:
        """Reads changed lists again. Returns whether any list has changed. After an error, all lists stay as they were.

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
        """Returns a mask of the items that may be shown, bool [I]. None: all items. Raises an InputError for a line without an id."""
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
    """Returns the first bytes of a list, at most one more than are allowed."""
    if fs.async_impl:
        with suppress(NotImplementedError):  # filesystems without streams ask their store for the range
            return fsspec.asyn.sync(fs.loop, _stream_start, fs, path)
    return fs.cat_file(path, start=0, end=MAX_LIST_BYTES + 1, **_limit_time(fs))


def _limit_time(fs: Any) -> dict[str, float]:
    return {"timeout": READ_SECONDS} if fs.async_impl else {}


async def _stream_start(fs: Any, path: str) -> bytearray:
    """Does the work of `_read_start` for a host that may send without end."""
    content = bytearray()
    async with asyncio.timeout(READ_SECONDS):
        file = await fs.open_async(path, "rb", size=0)  # size=0, so that the size is not requested
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
