"""Ragged rows: values of all rows one after another plus the offsets at which each row starts.

Belongs here: `Bags`, gathering ragged slices and the weights of a mean over each row, or of a sum divided by a root.
Does not belong here: where the values come from (`table_view`, `history`) and which table they point into (`embedding`).

Every feature's bag pools to a mean, so a weighted feature pools to the weighted mean sum(w * e) / sum(|w|) of its embeddings e:
equal weights of any positive size give what no weights give, and a row with long lists or large counts does not
outweigh the other features of its tower.

Letters: B rows, n values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, offsets_of, row_of_value


@dataclass(frozen=True)
class Bags:
    """Embedding indices of B rows and the weight of each in its row's sum.

    Attributes:
        values: no index is 0 (missing), save where the values of several bags belong together place by place.
        offsets: start of each row, and the end of the last.
        weights: of a mean, their absolute values sum to 1 in every row that has values; of a root, to the root of the
            importances' sum (`root_bags`); of values that are not summed, all 1.
    """

    values: IntArray  # [n]
    offsets: IntArray  # [B + 1]
    weights: FloatArray  # [n]


def mean_bags(values: npt.NDArray[Any], offsets: IntArray, importance: npt.NDArray[np.float64] | None = None) -> Bags:
    """Returns the bags whose weighted sum is the mean of each row's present values.

    A missing value (index 0) neither adds to the mean nor to its denominator; a row of only missing values is empty.

    Args:
        values: embedding indices [n].
        offsets: start of each row and the end of the last [B + 1].
        importance: positive weight of each value in the mean [n]; equal weights if None.
    """
    values, row, importance, totals = _present(values, offsets, importance)
    weights = (1.0 if importance is None else importance) / totals[row]
    return _of_rows(values, row, weights, len(totals))


def root_bags(values: npt.NDArray[Any], offsets: IntArray, importance: npt.NDArray[np.float64] | None = None) -> Bags:
    """Returns the bags whose weighted sum is sum(w * e) / sqrt(sum(w)) over each row's present values.

    Four values of importance 1 weigh 1/2 each: twice as much as one of them alone, which a mean could not tell from four.

    Args:
        values: embedding indices [n]; missing ones (0) are left out.
        offsets: start of each row and the end of the last [B + 1].
        importance: positive w of each value [n]; 1 if None.
    """
    values, row, importance, totals = _present(values, offsets, importance)
    weights = (1.0 if importance is None else importance) / np.sqrt(totals)[row]
    return _of_rows(values, row, weights, len(totals))


def weighted_bags(values: npt.NDArray[Any], offsets: IntArray, weights: npt.NDArray[Any]) -> Bags:
    """Returns the bags whose weighted sum is sum(w * e) / sum(|w|) over each row's present values.

    With all weights 1 they are those of `mean_bags`, bit for bit. A value of weight 0 is as good as missing; a row of
    only such values is empty. A negative weight turns its value's vector around.
    Example: weights 3, -1: the first vector times 0.75 less the second times 0.25.

    Args:
        values: embedding indices [n].
        offsets: start of each row and the end of the last [B + 1].
        weights: of each value, finite [n].
    """
    sizes = np.abs(weights.astype(np.float64))
    counted = np.where(sizes > 0, values, 0)
    bags = mean_bags(counted, offsets, sizes)
    is_negative = weights[counted > 0] < 0
    return replace(bags, weights=np.where(is_negative, -bags.weights, bags.weights))


def _present(
    values: npt.NDArray[Any], offsets: IntArray, importance: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[Any], IntArray, npt.NDArray[np.float64] | None, npt.NDArray[Any]]:
    """Returns the values that are not missing, the row and importance of each, and the importances' sum per row [B]."""
    count = len(offsets) - 1
    row = row_of_value(offsets)
    present = values > 0
    if not present.all():
        values, row = values[present], row[present]
        importance = None if importance is None else importance[present]
    return values, row, importance, np.bincount(row, weights=importance, minlength=count)


def _of_rows(values: npt.NDArray[Any], row: IntArray, weights: npt.NDArray[Any], count: int) -> Bags:
    offsets = offsets_of(np.bincount(row, minlength=count))
    return Bags(values.astype(np.int64, copy=False), offsets, weights.astype(np.float32))
