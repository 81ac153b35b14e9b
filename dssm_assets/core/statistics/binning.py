"""Exact equal-frequency boundaries of numeric features, from merged value counts.

Bins are [a, b) everywhere: a value equal to a boundary belongs to the bin that starts there. A cut lies between two distinct
values; the upper value is the boundary. All ranks are integers, so nothing depends on rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import COUNT, FEATURE, VALUE
from dssm_assets.core.features.fg_tables import FEATURE_BINNING


def bin_features(merged: pa.Table, num_bins: int, own_bins: Mapping[str, int] | None = None) -> pa.Table:
    """Returns one row per feature with its boundaries and the statistics of its values.

    Columns: feature, boundaries (ascending, empty for a constant or all-missing feature), count (including missing values),
    missing_count, distinct_count (excluding the missing value), min, max (null if all are missing), sorted by feature.

    Args:
        merged: numeric value counts of the window (`merge_value_counts`).
        own_bins: feature -> its number of bins, in place of num_bins.
    """
    rows = []
    for name in sorted(merged.column(FEATURE).unique().to_pylist()):
        own = merged.filter(pc.equal(merged.column(FEATURE), name))
        known = own.filter(own.column(VALUE).is_valid()).sort_by(VALUE)
        values, counts = known.column(VALUE).to_numpy().astype(np.float64), known.column(COUNT).to_numpy()
        total = int(own.column(COUNT).to_numpy().sum())
        rows.append(
            {
                FEATURE: name,
                "boundaries": equal_frequency_boundaries(values, counts, (own_bins or {}).get(name, num_bins)),
                COUNT: total,
                "missing_count": total - int(counts.sum()),
                "distinct_count": len(values),
                "min": float(values[0]) if len(values) else None,
                "max": float(values[-1]) if len(values) else None,
            }
        )
    return pa.Table.from_pylist(rows, schema=FEATURE_BINNING.schema)


def equal_frequency_boundaries(values: Any, counts: Any, num_bins: int) -> list[float]:
    """Returns strictly ascending cut points b of the bins (-inf, b0), [b0, b1), ..., each with at least one row.

    With at most num_bins distinct values, each value has its own bin. Otherwise, of n rows, k n / num_bins should be below the k-th
    cut. The cut is made at the nearest gap between two distinct values (the lower of two equally near). Equal cuts are merged.

    Example: values 1, 2, 3, 4 have counts 5, 1, 1, 5. For two bins, 6 of 12 rows should be below the cut. 6 rows are below 3, so
    the boundary is 3.
    """
    if len(values) <= num_bins:
        return [float(value) for value in values[1:]]
    below = np.cumsum(counts)[:-1] * num_bins
    targets = np.arange(1, num_bins) * int(counts.sum())
    upper = np.clip(np.searchsorted(below, targets, side="left"), 0, len(below) - 1)
    lower = np.maximum(upper - 1, 0)
    is_lower_nearer = np.abs(targets - below[lower]) <= np.abs(below[upper] - targets)
    cuts = np.unique(np.where(is_lower_nearer, lower, upper))
    return [float(value) for value in values[cuts + 1]]
