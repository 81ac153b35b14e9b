"""The sum of the history divided by the square root of its weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.bags import Bags, root_bags
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.poolings.mean import MeanPooling


class RootPooling(MeanPooling):
    """Pools to sum(w * e) / sqrt(sum(w)), so that long histories have longer vectors; weights as for the mean."""

    def make_bags(self, values: IntArray, offsets: IntArray, weights: npt.NDArray[np.float64] | None) -> Bags:
        """Returns the bags of one sub-feature, its weights divided by the square root of their sum."""
        return root_bags(values, offsets, weights)
