"""How many distinct values share a hash bucket."""

from __future__ import annotations

from typing import Any

import numpy as np


def collision_frac(hashes: Any, bucket_count: int) -> float:
    """Returns the share of distinct values that share their bucket with another one."""
    buckets = np.asarray(hashes).view(np.uint64) % np.uint64(bucket_count)
    _, counts = np.unique(buckets, return_counts=True)
    return float(counts[counts > 1].sum() / max(len(buckets), 1))
