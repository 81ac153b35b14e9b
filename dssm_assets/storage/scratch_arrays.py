"""Arrays that lie in files of a folder instead of memory: what a step computes whole but need not hold whole.

Belongs here: making them, opening them in another process. Does not belong here: the folder, which is its owner's to remove (`partition_store.staging`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ScratchArrays:
    """Makes arrays mapped from files: their pages are the system's to write back and to drop when memory is short."""

    def __init__(self, folder: Path) -> None:
        """Takes an existing local folder; files in it are named `array-N`."""
        self._folder = folder
        self._count = 0

    def __call__(self, length: int, kind: Any) -> npt.NDArray[Any]:
        """Returns room for so many numbers of a kind, zeros at first."""
        if not length:  # an empty file cannot be mapped
            return np.empty(0, kind)
        return np.memmap(self._next(), dtype=kind, mode="w+", shape=(length,))

    def joined(self, parts: Iterable[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
        """Returns parts one after the other as one array, which may not be written to; one part is held at a time."""
        path, length = self._next(), 0
        with path.open("wb") as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, kind).data)
                length += len(part)
        return ScratchFile(path, np.dtype(kind).str, length).open()

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"array-{self._count}"


@dataclass(frozen=True)
class ScratchFile:
    """An array in a file, by what another process of this machine needs to open it."""

    path: Path
    kind: str
    length: int

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> ScratchFile:
        """Returns the file of an array, or of the beginning of one, that `ScratchArrays` made."""
        if not len(array):
            return cls(Path(), array.dtype.str, 0)
        if not isinstance(array, np.memmap) or array.filename is None:
            raise TypeError(f"an array of ScratchArrays, got {type(array).__name__}")
        return cls(Path(array.filename), array.dtype.str, len(array))

    def open(self) -> npt.NDArray[Any]:
        """Returns the array, to be read."""
        if not self.length:
            return np.empty(0, self.kind)
        return np.memmap(self.path, dtype=self.kind, mode="r", shape=(self.length,))
