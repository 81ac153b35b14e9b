"""Stores the state of a fit with sharded tables. Each process stores its own part."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dssm_assets.core.training.compute import Ranks
from dssm_assets.storage.local_files import write_atomic

_SLOTS: Final = (b"a", b"b")


class ShardedState:
    """The parts of a state. They are written to two slots in turn, and a small file names the complete slot.

    If a fit is killed while it writes one slot, it resumes from the other.
    """

    def __init__(self, path: Path, ranks: Ranks) -> None:
        """`path` is the file that names the complete slot."""
        self._path, self._ranks = path, ranks
        self._slot: bytes | None = None

    def read(self) -> bytes | None:
        """Returns this process's part. None: not every process has its part."""
        slot = self._path.read_bytes() if self._path.exists() else b""
        part = self._part_path(slot) if slot in _SLOTS else None
        state = part.read_bytes() if part is not None and part.exists() else b""
        is_same = self._ranks.is_same(float(zlib.crc32(slot))) and self._ranks.is_same(float(bool(state)))
        if not is_same or not state:
            return None
        self._slot = slot
        return state

    def write(self, chunks: Iterable[bytes]) -> None:
        """Stores this process's part, given in chunks. All processes must call it together."""
        if self._slot is None:
            if self._ranks.is_first:
                self._path.unlink(missing_ok=True)  # it may name the slot that is about to be overwritten
            self._ranks.wait()
        slot = _SLOTS[0] if self._slot != _SLOTS[0] else _SLOTS[1]
        write_atomic(self._part_path(slot), chunks)
        self._ranks.wait()
        if self._ranks.is_first:
            write_atomic(self._path, [slot])
        self._slot = slot

    def _part_path(self, slot: bytes) -> Path:
        return self._path.with_name(f"{self._path.name}.{slot.decode()}.{self._ranks.rank}-of-{self._ranks.count}")
