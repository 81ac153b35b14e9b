"""What every sampler of negatives offers, and the one that a model section names.

Belongs here: the protocol and the choice. Does not belong here: the laws themselves, one file each, and what does not
count for a row (`losses/masks`).

Letters: I items, N draws.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.bags import IntArray
from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.weighted import MixedSampler, UniformSampler, V2Sampler, WeightedSampler


class HardV2Sampler(HardSampler, V2Sampler):
    """Draws item indices by weight, hard negatives of the rows' users, and tells the distribution of what counts for a user."""


class NegativeSampler(Protocol):
    """Draws items of the corpus, with replacement, by a distribution that it tells."""

    probability: npt.NDArray[np.float64]
    """The exact distribution, one entry per item [I]."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns N item indices and the probability with which each was drawn; items may repeat."""


def negative_sampler(model: Model, weights: npt.NDArray[np.float64], edges: HardEdges | None = None) -> NegativeSampler:
    """Returns the sampler that the model section names.

    Args:
        model: the section.
        weights: of the items of the corpus in negative_items [I].
        edges: what users were shown and did not take; none where the section has no hard negatives.

    Raises:
        SchemaError: a weight is negative or not finite, or none is positive.
    """
    match model.sampler:
        case Sampler.UNIFORM:
            return UniformSampler(len(weights))
        case Sampler.WEIGHTED:
            return WeightedSampler(weights)
        case Sampler.V2:
            return V2Sampler(weights)
        case Sampler.MIXED:
            return MixedSampler(weights, model.uniform_frac)
        case Sampler.HARD:
            return HardSampler(weights, edges or HardEdges.none())
        case Sampler.HARD_V2:
            return HardV2Sampler(weights, edges or HardEdges.none())
