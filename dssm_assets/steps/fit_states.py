"""The files in which a training that is under way is kept, so that a killed one goes on.

One process writes one file. Where embedding tables are dealt out, every process writes a part of its own, and a state is
the parts of one moment: they are written beside those of the moment before, and then a small file names the new ones. The
folder must be one that all processes read; where they do not see the same there, all begin anew.

Belongs here: names of files, in which order they are written. Does not belong here: what is in a state
(`core/training/fit_state`), when one is stored (`core/training/loop`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

from dssm_assets.core.training.distributed import ALONE, Ranks
from dssm_assets.storage.whole_file import write_whole

_SLOTS = (b"a", b"b")


class FitStates:
    """The states of one fit, below one path."""

    def __init__(self, path: Path, ranks: Ranks = ALONE, *, is_dealt: bool = False) -> None:
        """Takes where the states lie.

        Args:
            path: of the state, or of the file that names its parts.
            ranks: this process among those that share the fit.
            is_dealt: every process stores a part.
        """
        self._path, self._ranks, self._is_dealt = path, ranks, is_dealt and ranks.count > 1
        self._slot: bytes | None = None

    def saved(self) -> bytes | None:
        """Returns what this process goes on from, None where there is nothing or not every process has it."""
        named = self._path.read_bytes() if self._path.exists() else b""
        found = named
        if self._is_dealt:
            part = self._part(named) if named in _SLOTS else None
            found = part.read_bytes() if part is not None and part.exists() else b""
        if not self._ranks.is_same(float(zlib.crc32(named))) or not self._ranks.is_same(float(bool(found))) or not found:
            return None
        self._slot = named if self._is_dealt else None
        return found

    def save(self, chunks: Iterable[bytes]) -> None:
        """Stores a state, given piece by piece; of dealt tables in all processes at once."""
        if not self._is_dealt:
            write_whole(self._path, chunks)
            return
        if self._slot is None:
            if self._ranks.is_first:
                self._path.unlink(missing_ok=True)  # it may name parts that are about to be written over
            self._ranks.wait()
        slot = _SLOTS[0] if self._slot != _SLOTS[0] else _SLOTS[1]
        write_whole(self._part(slot), chunks)
        self._ranks.wait()
        if self._ranks.is_first:
            write_whole(self._path, [slot])
        self._slot = slot

    def forget(self) -> None:
        """Removes the state of a fit that is over."""
        self._path.unlink(missing_ok=True)
        for part in self._path.parent.glob(f"{self._path.name}.*-of-*"):
            part.unlink(missing_ok=True)

    def _part(self, slot: bytes) -> Path:
        return self._path.with_name(f"{self._path.name}.{slot.decode()}.{self._ranks.rank}-of-{self._ranks.count}")
