"""The file current.json: read, and replaced in one step if nobody else has replaced it since it was read.

On a local disk the caller's lock keeps others away and a rename replaces the file. On S3 the put itself is conditional
(If-Match, If-None-Match), so that two publishers cannot undo each other; on other object stores the last one wins.

Belongs here: the bytes of the pointer. Does not belong here: what it says and how it moves (`bundle_pointer.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.bundle_pointer import Pointer
from dssm_assets.storage.whole_file import write_whole

CURRENT: Final = "current.json"
_TRIES: Final = 8
_LOST: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""What S3 answers to a put whose condition no longer holds."""


class PointerFile:
    """The pointer of one serving root."""

    def __init__(self, fs: Any, root: str, *, is_local: bool) -> None:
        self.path = f"{root}/{CURRENT}"
        self._fs = fs
        self._is_local = is_local
        self._is_s3 = "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))

    def read(self) -> Pointer | None:
        """Returns what is served now, None where nothing was ever published.

        Raises:
            StorageError: the file is no pointer.
        """
        try:
            text = self._fs.cat_file(self.path, start=0)
        except FileNotFoundError:
            return None
        try:
            return Pointer.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path}: not a pointer to a bundle ({error}); put it right by hand") from error

    def move(self, change: Callable[[Pointer | None], Pointer]) -> Pointer:
        """Replaces the pointer by what `change` makes of the one before; returns it.

        `change` is called again with the newer one if somebody else was faster.

        Raises:
            StorageError: the file is no pointer, or others were faster every time.
        """
        for _ in range(_TRIES):
            mark = self._mark()
            pointer = change(self.read())
            if self._replace(pointer.to_json(), mark):
                return pointer
        raise StorageError(f"{self.path}: other publishers moved it {_TRIES} times meanwhile; publish again")

    def _mark(self) -> dict[str, str]:
        """Returns the condition under which the file is still the one that is there now."""
        if not self._is_s3:
            return {}
        try:
            # Before the content is read: if it changes in between, the condition fails, as it should.
            return {"IfMatch": str(self._fs.info(self.path, refresh=True)["ETag"])}
        except FileNotFoundError:
            return {"IfNoneMatch": "*"}

    def _replace(self, text: str, mark: dict[str, str]) -> bool:
        if not self._is_local:
            try:
                self._fs.pipe_file(self.path, text.encode(), **mark)
            except OSError as error:
                answer = getattr(error.__cause__, "response", {})
                if mark and answer.get("Error", {}).get("Code") in _LOST:
                    return False
                raise
            return True
        write_whole(Path(self.path), [text.encode()])
        return True
