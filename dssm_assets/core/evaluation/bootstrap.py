"""Bootstrap over users: how far a sum over users would move, had other users come.

Belongs here: resampling and percentiles. Does not belong here: which sums are formed (`totals.py`, `segments.py`).

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6 and 13 (percentile interval).

Shapes: U users, C columns that are summed, R resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.retrieval.exclusions import Index

Floats = NDArray[np.float64]
CELLS = 4_000_000
"""Weights (resamples times users) held at once."""
TAILS = (2.5, 97.5)


def resampled_sums(values: Index, samples: int, seed: int) -> Floats:
    """Returns float64 [R, C]: the column sums over R multinomial resamples of the rows.

    The resamples depend on the seed and the number of rows alone, so columns of one call, and calls over the same users,
    are paired. Sums of whole numbers below 2**53 are exact in float64: their order, and so the threads, cannot change them.

    Args:
        values: int64 [U, C], at least one row.
        samples: R.
        seed: of the generator (PCG64).
    """
    num_users = len(values)
    rng = np.random.Generator(np.random.PCG64(seed))
    wide = values.astype(np.float64)
    step = max(1, CELLS // num_users)
    parts = []
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = rng.integers(num_users, size=(size, num_users))
        drawn += np.arange(size)[:, None] * num_users
        weights = np.bincount(drawn.ravel(), minlength=size * num_users).reshape(size, num_users)
        parts.append(weights.astype(np.float64) @ wide)
    return np.concatenate(parts)


def interval(resampled: NDArray[Any]) -> tuple[Floats, Floats]:
    """Returns the 2.5 and the 97.5 percentile over the resamples (axis 0)."""
    low, high = np.percentile(resampled, TAILS, axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)
