"""The stored list of users who are to be forgotten: read by whoever reads sources or answers, changed by `dssm-assets forget` alone.

What was begun before a change of the list is not published after it (`check_unchanged`), so that nobody writes again what was read before.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

from dssm_assets.core.errors import Fault, PartitionReplacedError, StorageError
from dssm_assets.core.forgotten import NOBODY, Forgotten
from dssm_assets.storage import layout
from dssm_assets.storage.files import check_file
from dssm_assets.storage.local_files import folder_lock, is_local
from dssm_assets.storage.locations import location_errors, put_if, unchanged_condition

_TRIES: Final = 20


class ForgottenList:
    """The list of a store, below its serving root."""

    def __init__(self, fs: Any, serving: str) -> None:
        self._fs, self._serving, self.path = fs, serving, layout.forgotten_path(serving)
        self._noted: str | None = None

    def read(self) -> Forgotten:
        """Returns the stored list, nobody where there is none.

        Raises:
            InputError: the store cannot be reached.
            StorageError: it is no such list.
        """
        try:
            with location_errors(self.path, "key storage.root", may_be_missing=True):
                check_file(self._fs, self.path)
                text = self._fs.cat_file(self.path, start=0)
        except FileNotFoundError:
            return NOBODY
        try:
            return Forgotten.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(str(Fault(self.path, "a list of hashes", str(error), "restore it: it is needed"))) from error

    def change(self, update: Callable[[Forgotten], Forgotten]) -> Forgotten:
        """Replaces the list by what `update` makes of it; returns the new one.

        If that has another state, nothing is published that was begun before.
        """
        with folder_lock(self._serving) if is_local(self._fs) else nullcontext():
            for _ in range(_TRIES):
                condition = unchanged_condition(self._fs, self.path)
                before = self.read()
                after = update(replace(before, salt=before.salt or secrets.token_hex(8)))
                if put_if(self._fs, self.path, after.to_json().encode(), condition):
                    return after
        raise StorageError(
            str(Fault(self.path, "a list that one command changes at a time", "others change it", "run it again"))
        )

    def note(self) -> Forgotten:
        """Returns the list; remembers its state for `check_unchanged`."""
        found = self.read()
        self._noted = found.state
        return found

    def note_once(self) -> None:
        """Remembers the state of the list unless one is remembered."""
        if self._noted is None:
            self.note()

    def check_unchanged(self, where: str) -> None:
        """Raises a PartitionReplacedError, once, if the list has changed since its state was remembered."""
        if self._noted is not None and self.read().state != self._noted:
            self._noted = None
            remedy = "run it again: it then reads without the users who were forgotten meanwhile"
            raise PartitionReplacedError(Fault(where, "the rows that were read to be kept", "users to be forgotten", remedy))
