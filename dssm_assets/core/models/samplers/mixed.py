"""Negatives of which a fraction is drawn uniformly and the rest by weight (Yang et al., "Mixed Negative Sampling for
Learning Two-tower Neural Networks in Recommendations", WWW 2020).

Letters: I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.samplers.weighted import WeightedSampler


class MixedSampler(WeightedSampler):
    """Draws item indices with probability f / I + (1 - f) * weight / sum of weights."""

    def __init__(self, weights: npt.NDArray[np.float64], uniform_frac: float) -> None:
        """Builds the alias table of the mixture.

        Args:
            weights: of the items [I].
            uniform_frac: f, 0 to 1.

        Raises:
            SchemaError: a weight is negative or not finite, or none is positive.
        """
        by_weight = WeightedSampler(weights).probability
        super().__init__(uniform_frac / len(weights) + (1.0 - uniform_frac) * by_weight)
