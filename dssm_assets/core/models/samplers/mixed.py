"""Negatives of which a share is uniform and the rest by weight.

Uniform ones make rare items known, weighted ones are hard enough to learn from (Yang et al., "Mixed Negative Sampling
for Learning Two-tower Neural Networks in Recommendations", WWW 2020). Every draw is of the one mixed law

    q(y) = f / I + (1 - f) * w(y) / sum of w

so the correction that follows from q is exact for each.

Belongs here: `MixedSampler`. Does not belong here: the draw by a given law (`weighted`).

Letters: I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.samplers.weighted import WeightedSampler


class MixedSampler(WeightedSampler):
    """Draws item indices by the mixed law."""

    def __init__(self, weights: npt.NDArray[np.float64], uniform_frac: float) -> None:
        """Takes the items' weights and f, the share that is drawn uniformly, 0 to 1.

        Raises:
            SchemaError: a weight is negative or not finite, or none is positive.
        """
        by_weight = WeightedSampler(weights).probability
        super().__init__(uniform_frac / len(weights) + (1.0 - uniform_frac) * by_weight)
