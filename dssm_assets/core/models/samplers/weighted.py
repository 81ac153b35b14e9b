"""Negatives drawn from the corpus: uniformly, by weight, by a mixture of both, or every item once.

Letters: I items, N draws.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.errors import Fault, SchemaError

Draws = tuple[IntArray, npt.NDArray[np.float64]]
"""Item indices and the probability of each [N]."""


UNIFORM_FRAC = 0.5
"""Fraction of the draws of the sampler `mixed` that are uniform."""


class NegativeSampler(Protocol):
    """Draws items of the corpus, with replacement, from a distribution that it discloses."""

    probability: npt.NDArray[np.float64]
    """The exact distribution, one entry per item [I]."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """Returns N item indices and the probability of each; items may repeat."""


class UniformSampler:
    """Draws each item with probability 1 / I.

    Raises:
        SchemaError: there is no item.
    """

    def __init__(self, num_items: int) -> None:
        if num_items < 1:
            raise SchemaError(Fault("table items", "at least one item", "none", "correct negative_items"))
        self.probability: npt.NDArray[np.float64] = np.full(num_items, 1.0 / num_items)

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        item_index = rng.integers(len(self.probability), size=count)
        return item_index, self.probability[item_index]


class AllItemsSampler(UniformSampler):
    """Returns each item once: a softmax over all items. The logQ correction of every item is 0."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        return np.arange(len(self.probability), dtype=np.int64), self.probability


class WeightedSampler:
    """Draws items with probability weight / sum of weights, in constant time each, by Walker's alias method (1977).

    Raises:
        SchemaError: a weight is negative or not finite, or none is positive.
    """

    def __init__(self, weights: npt.NDArray[np.float64]) -> None:
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any() or not (weights > 0).any():
            got = f"{int(wrong.sum())} bad weights, {int((weights > 0).sum())} positive ones"
            where = "table items, column weight"
            raise SchemaError(Fault(where, "finite weights >= 0, one of them positive", got, "correct negative_items"))
        self.probability: npt.NDArray[np.float64] = weights / weights.sum()
        self.keep, self.alias = alias_table(self.probability)

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        slot = rng.integers(len(self.keep), size=count)
        item_index = np.where(rng.random(count) < self.keep[slot], slot, self.alias[slot])
        return item_index, self.probability[item_index]


def mix_with_uniform(weights: npt.NDArray[np.float64]) -> WeightedSampler:
    """Returns a sampler that draws half uniformly and half by weight (Yang et al. 2020, "Mixed Negative Sampling")."""
    by_weight = WeightedSampler(weights).probability
    return WeightedSampler(UNIFORM_FRAC / len(weights) + (1.0 - UNIFORM_FRAC) * by_weight)


def alias_table(probability: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], IntArray]:
    """Returns (keep, alias): slot s yields s with probability keep[s], else alias[s]; all slots are equally likely.

    The table is built with two prefix sums instead of a work list (Huebschle-Schneider and Sanders 2019, section 4).
    An item is light if its share (probability times I) is below 1, else heavy. The rest of a light item's slot is filled
    by a heavy item: the first whose running excess is above the deficits filled before. If a light item needs more than
    is left of a heavy item's excess, that heavy item's own slot gets a deficit, which the next heavy item fills.
    """
    share = probability * len(probability)
    keep, alias = np.ones_like(share), np.arange(len(share), dtype=np.int64)
    is_heavy = share >= 1
    # Equal weights can all round to just below 1; the largest then fills the others.
    is_heavy[np.argmax(share)] = True
    light, heavy = np.flatnonzero(~is_heavy), np.flatnonzero(is_heavy)
    if not len(light):
        return keep, alias
    served = np.concatenate([[0.0], np.cumsum(1 - share[light])])  # after 0, 1, .. light items
    excess = np.cumsum(share[heavy] - 1)
    server = np.minimum(np.searchsorted(excess, served[:-1], side="right"), len(heavy) - 1)
    keep[light], alias[light] = share[light], heavy[server]
    # The search starts at 0: a heavy item of share exactly 1 at the front has excess 0 and no deficit.
    overdrawn_at = np.searchsorted(served, excess[:-1], side="left")
    is_overdrawn = overdrawn_at < len(served)
    drawn = served[np.minimum(overdrawn_at, len(served) - 1)]
    keep[heavy[:-1]] = np.where(is_overdrawn, np.clip(1 + excess[:-1] - drawn, 0, 1), 1.0)
    alias[heavy[:-1]] = np.where(is_overdrawn, heavy[1:], heavy[:-1])
    return keep, alias
