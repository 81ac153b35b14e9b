"""Combiners: how the numbers of a row's several hits become one."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np

from dssm_assets.core.features.number_values import Numbers


class Combiner(StrEnum):
    """How the numbers of several hits become one. NONE keeps them all."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    NONE = ""


def combine(combiner: Combiner, rows: Any, numbers: Numbers, row_count: int) -> Numbers:
    """Returns one number per row, NaN for a row without hits.

    Args:
        combiner: any but NONE.
        rows: row of each hit, ascending, so sums run in the order of the hits.
        numbers: number of each hit.
        row_count: rows of the result.
    """
    counts = np.bincount(rows, minlength=row_count)
    result = np.full(row_count, np.nan)
    has_hit = counts > 0
    starts = (np.cumsum(counts) - counts)[has_hit]
    if combiner is Combiner.COUNT:
        result[has_hit] = counts[has_hit]
    elif combiner in (Combiner.MIN, Combiner.MAX):
        reduce = np.minimum if combiner is Combiner.MIN else np.maximum
        result[has_hit] = reduce.reduceat(numbers, starts) if len(starts) else 0
    else:
        result[has_hit] = np.bincount(rows, weights=numbers, minlength=row_count)[has_hit]
        if combiner is Combiner.MEAN:
            result[has_hit] /= counts[has_hit]
    return result
