"""Arrays that lie in files of a folder instead of memory: what a step computes whole but need not hold whole.

Belongs here: making them. Does not belong here: the folder, which is its owner's to remove (`partition_store.staging`).
"""

from __future__ import annotations

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
        self._count += 1
        return np.memmap(self._folder / f"array-{self._count}", dtype=kind, mode="w+", shape=(length,))
