"""Bags: the embedding indices of each row of a batch, with the weights that pool them.

A feature's bag pools to the weighted mean sum(w * e) / sum(|w|) of its embeddings e. Equal weights give the plain mean, and a
row with long lists or large counts does not outweigh the other features of its tower.

Letters: B rows, n values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, offsets_of, row_of_value


@dataclass(frozen=True)
class Bags:
    """Embedding indices of B rows, and the weight of each index in its row's sum.

    Attributes:
        values: embedding indices [n]. 0 (missing) occurs only in bags aligned position by position.
        offsets: start of each row and the end of the last [B + 1].
        weights: factor of each value in its row's sum [n]. In each non-empty row the absolute values sum to 1 for a mean, and to
            the root of the summed importances with the scale `np.sqrt`. A value that is not summed has weight 1.
    """

    values: IntArray  # [n]
    offsets: IntArray  # [B + 1]
    weights: FloatArray  # [n]


def mean_bags(
    values: npt.NDArray[Any],
    offsets: IntArray,
    importance: npt.NDArray[np.float64] | None = None,
    scale: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = np.asarray,
) -> Bags:
    """Weighs each row's present values so that their embeddings e pool to sum(w * e) / scale(sum(w)), by default the mean.

    A missing value (index 0) does not count. A row with only missing values is empty. With the scale `np.sqrt`, four values of
    importance 1 weigh 1/2 each and sum to 2, while one value alone sums to 1.

    Args:
        values: embedding indices [n].
        offsets: start of each row and the end of the last [B + 1].
        importance: positive weight w of each value [n]; equal weights if None.
        scale: applied to the sum of each row's weights.
    """
    present = values > 0
    if not present.all():
        values, offsets = values[present], offsets_of(present)[offsets]
        importance = None if importance is None else importance[present]
    lengths = np.diff(offsets)
    totals = lengths if importance is None else np.bincount(row_of_value(offsets), importance, minlength=len(lengths))
    weights = (1.0 if importance is None else importance) / scale(np.repeat(totals, lengths))
    return Bags(values.astype(np.int64, copy=False), offsets, weights.astype(np.float32))


def weighted_bags(values: npt.NDArray[Any], offsets: IntArray, weights: npt.NDArray[Any]) -> Bags:
    """Weighs each row's present values so that their sum is sum(w * e) / sum(|w|).

    With all weights 1 they equal the bags of `mean_bags`, bit for bit. A value of weight 0 counts as missing. A negative weight
    reverses its value's vector. Example: weights 3, -1 give 0.75 * first - 0.25 * second.

    Args:
        values: embedding indices [n].
        offsets: start of each row and the end of the last [B + 1].
        weights: finite weight of each value [n].
    """
    sizes = np.abs(weights.astype(np.float64))
    present = np.where(sizes > 0, values, 0)
    bags = mean_bags(present, offsets, sizes)
    is_negative = weights[present > 0] < 0
    return replace(bags, weights=np.where(is_negative, -bags.weights, bags.weights))
