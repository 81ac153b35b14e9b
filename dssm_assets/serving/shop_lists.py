"""Lists of the shop that change without a new bundle: items that must not be shown, and items in stock, which alone may be.

A list is a text file, one item id per line, at a path or fsspec URL; in the bucket of the bundles it is read with their keys. It is read again when it changes. Write it under another name and rename it: a
reader may meet a file that is still being written. A list that cannot be used leaves the former one in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.item_filter import BoolArray
from dssm_assets.serving.id_rows import IdRows
from dssm_assets.storage.locations import location_errors, open_location

MAX_BYTES: Final = 1 << 28
_SHOWN: Final = 80


class _Content(NamedTuple):
    """What a file held, and what of the file changes when it is written; None if the filesystem does not say."""

    ids: pa.Array
    state: str | None


class ShopList:
    """The ids in one file."""

    def __init__(self, uri: str, where: str, options: Mapping[str, Any], *, may_be_empty: bool) -> None:
        """Takes the file's place, its name in errors and the options of its filesystem, and reads it.

        Raises:
            InputError: as `fetch`.
        """
        self.uri, self.where, self._may_be_empty = uri, where, may_be_empty
        self._fs, self._path = open_location(uri, where, options)
        self._content: _Content | None = None
        self._content = self.fetch()

    def fetch(self) -> _Content | None:
        """Returns what the file holds now; None if it has not changed.

        Raises:
            InputError: it cannot be read, is too large, is not UTF-8, or is empty and must not be.
        """
        with location_errors(self.uri, self.where):
            self._fs.invalidate_cache()
            size, state = int(self._fs.size(self._path) or 0), self._find_state()
            if self._content is not None and state is not None and state == self._content.state:
                return None
            if size > MAX_BYTES:
                raise InputError(Fault(self._place, f"at most {MAX_BYTES} bytes", f"{size}", "list fewer items"))
            content = self._fs.cat_file(self._path)
            if len(content) > MAX_BYTES:  # a web server need not say its size
                raise InputError(Fault(self._place, f"at most {MAX_BYTES} bytes", f"{len(content)}", "list fewer items"))
        try:
            lines = [line for text in content.decode("utf-8-sig").splitlines() if (line := text.strip())]
        except UnicodeDecodeError as error:
            got = f"byte {error.start} that is not"
            raise InputError(Fault(self._place, "text in UTF-8, one item id per line", got, "write the list again")) from error
        if not lines and not self._may_be_empty:
            raise InputError(Fault(self._place, "at least one item id", "none", "list the items, or serve without the list"))
        found = _Content(pa.array(lines, pa.string()), state)
        if self._content is not None and found.ids.equals(self._content.ids):
            self._content = found
            return None
        return found

    def take(self, content: _Content) -> None:
        """Makes a content that was fetched the list's own."""
        self._content = content

    def rows(self, items: IdRows, content: _Content | None = None) -> npt.NDArray[np.int64]:
        """Returns the rows of the listed items that a bundle has; of its own content, or of one that was fetched.

        Raises:
            InputError: the bundle's ids are integers, and a line is none.
        """
        ids = (content or self._content or _NOTHING).ids
        try:
            found = items.rows_of(pa.chunked_array([ids.cast(pa.int64()) if items.is_integer else ids]))
        except pa.ArrowInvalid as error:
            got = str(error)[:_SHOWN]
            raise InputError(Fault(self._place, "one integer item id per line", got, "correct the list")) from error
        return found[found >= 0]

    @property
    def _place(self) -> str:
        return f"{self.where} {self.uri}"

    def _find_state(self) -> str | None:
        """Returns what changes when the file does; None if the filesystem does not say."""
        protocols = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        return None if {"http", "https"} & set(protocols) else str(self._fs.ukey(self._path))


_NOTHING: Final = _Content(pa.array([], pa.string()), None)


class ShopLists:
    """Both lists; either may be absent."""

    def __init__(
        self,
        blocked: str | None = None,
        stocked: str | None = None,
        root: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the places of the lists and reads them.

        Args:
            blocked: place of the items that must not be shown.
            stocked: place of the items in stock.
            root: of the bundles. A list in its bucket is read with its options, another one as the environment says.
            options: of the filesystem of `root`.

        Raises:
            InputError: with the faults of both.
        """
        faults: list[Fault] = []
        self.blocked = _open(blocked, "blocked items", (root, options or {}), faults, may_be_empty=True)
        self.stocked = _open(stocked, "stocked items", (root, options or {}), faults, may_be_empty=False)
        InputError.raise_if(faults)

    def refresh(self, items: IdRows) -> bool:
        """Reads the lists again where they have changed; returns whether any has. After an error all are as before.

        Raises:
            InputError: a list cannot be used for a bundle with these items.
        """
        lists = [one for one in (self.blocked, self.stocked) if one is not None]
        fetched = [(one, content) for one in lists if (content := one.fetch()) is not None]
        for one, content in fetched:
            one.rows(items, content)
        for one, content in fetched:
            one.take(content)
        return bool(fetched)

    def find_shown(self, items: IdRows) -> BoolArray | None:
        """Returns the items of a bundle that may be shown, bool [I]; None: all.

        Raises:
            InputError: a list has what is no id of the bundle's type.
        """
        if self.blocked is None and self.stocked is None:
            return None
        shown = np.ones(len(items), bool)
        if self.stocked is not None:
            shown[:] = False
            shown[self.stocked.rows(items)] = True
        if self.blocked is not None:
            shown[self.blocked.rows(items)] = False
        return shown


def _open(
    uri: str | None, where: str, store: tuple[str, Mapping[str, Any]], faults: list[Fault], *, may_be_empty: bool
) -> ShopList | None:
    if uri is None:
        return None
    root, options = store
    try:
        return ShopList(uri, where, options if _find_bucket(uri) == _find_bucket(root) else {}, may_be_empty=may_be_empty)
    except InputError as error:
        faults += error.faults
        return None


def _find_bucket(uri: str) -> tuple[str, str] | None:
    """Returns protocol and bucket of a URL, None for a path."""
    protocol, found, rest = uri.partition("://")
    return (protocol, rest.partition("/")[0]) if found else None
