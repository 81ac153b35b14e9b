"""The two limits that everything else is compared with: products of matrices and bytes through memory.

Belongs here: measuring them. Does not belong here: what the library's parts need of them (`parts.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

_WIDTH: Final = 1024
_BYTES: Final = 1 << 28
_REPEATS: Final = 5


@dataclass(frozen=True)
class MachineLimits:
    """What the machine can do with the given threads.

    Attributes:
        gflops: floating point operations a second of a float32 product of two 1024 x 1024 matrices, in thousand millions.
        gbytes: bytes a second that a copy of 256 MiB reads and writes, in thousand millions.
    """

    gflops: float
    gbytes: float

    def rows_per_s(self, flops: float, bytes_moved: float) -> tuple[float, str]:
        """Returns how many rows a second the machine could do at best, and which limit says so.

        Args:
            flops: operations of one row; 0: none that count.
            bytes_moved: bytes that one row reads and writes.
        """
        product = self.gflops * 1e9 / flops if flops else float("inf")
        memory = self.gbytes * 1e9 / bytes_moved if bytes_moved else float("inf")
        return (product, "matrix product") if product <= memory else (memory, "memory bandwidth")


def measure_limits(now: Callable[[], float]) -> MachineLimits:
    """Returns the limits of this machine with torch's threads as they are set: the best of five tries each."""
    import torch

    left = torch.rand(_WIDTH, _WIDTH)
    product = _best_seconds(lambda: torch.mm(left, left), now)
    source, target = torch.ones(_BYTES // 4), torch.ones(_BYTES // 4)
    copy = _best_seconds(lambda: target.copy_(source), now)
    return MachineLimits(2 * _WIDTH**3 / product / 1e9, 2 * _BYTES / copy / 1e9)


def _best_seconds(work: Callable[[], object], now: Callable[[], float]) -> float:
    spent = []
    work()
    for _ in range(_REPEATS):
        start = now()
        work()
        spent.append(now() - start)
    return max(float(np.min(spent)), 1e-9)
