"""The stored list of hidden users: nobody may read their rows. Every reader obeys it; only `extras/retention` changes it.

If the list changes during a run, the run must not publish (`check_unchanged`), because it has read rows under the old list.
"""

from __future__ import annotations

from typing import Any

from dssm_assets.core.errors import Fault, PartitionReplacedError, StorageError
from dssm_assets.core.hidden_rows import NOBODY, HiddenRows
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage import layout
from dssm_assets.storage.files import check_file
from dssm_assets.storage.locations import location_errors


class HiddenList:
    """The list of hidden users in a store, below its serving root."""

    def __init__(self, fs: Any, serving: str) -> None:
        self.fs, self.serving, self.path = fs, serving, layout.inside(serving, layout.FORGOTTEN)
        self._noted: str | None = None

    def read(self) -> HiddenRows:
        """Returns the stored list as `HiddenRows`. Without a list, nobody is hidden.

        Raises:
            ConfigError: there is a list, but no extra that can read it.
            InputError: the store cannot be reached.
            StorageError: the file is not a list of hidden users.
        """
        try:
            with location_errors(self.path, "key storage.root", may_be_missing=True):
                check_file(self.fs, self.path)
                text = self.fs.cat_file(self.path, start=0)
        except FileNotFoundError:
            return NOBODY
        try:
            hidden: HiddenRows = load_extra("retention", "forgotten").Forgotten.from_json(text)
            return hidden
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(str(Fault(self.path, "a list of hashes", str(error), "restore it: it is needed"))) from error

    def note(self) -> HiddenRows:
        """Returns the list, and remembers its state for `check_unchanged`."""
        hidden = self.read()
        self._noted = hidden.state
        return hidden

    def note_once(self) -> None:
        """Remembers the state of the list, unless a state is already remembered."""
        if self._noted is None:
            self.note()

    def check_unchanged(self, where: str) -> None:
        """Raises a PartitionReplacedError, once, if the list has changed since its state was remembered."""
        if self._noted is not None and self.read().state != self._noted:
            self._noted = None
            remedy = "run it again: it then reads without the users who were forgotten meanwhile"
            raise PartitionReplacedError(Fault(where, "no change of the forgotten users during the run", "a change", remedy))
