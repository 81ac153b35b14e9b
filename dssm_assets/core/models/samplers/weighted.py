"""Negatives drawn by weight, with replacement, in constant time each.

Walker's alias method (Walker 1977). Its table is built with two prefix sums instead of a loop over a work list, as in
Huebschle-Schneider and Sanders, "Parallel Weighted Random Sampling" (2019), section 4. A sampler of another
distribution subclasses `WeightedSampler` and hands it the distribution as weights (see `mixed.py`).

Letters: I items, N draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.errors import Fault, SchemaError


class WeightedSampler:
    """Draws item indices with probability weight / sum of weights.

    Attributes:
        probability: the exact distribution, one entry per item [I].

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

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns N item indices and the probability of each; items may repeat."""
        slot = rng.integers(len(self.keep), size=count)
        item_index = np.where(rng.random(count) < self.keep[slot], slot, self.alias[slot])
        return item_index, self.probability[item_index]


def alias_table(probability: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], IntArray]:
    """Returns (keep, alias): slot s yields s with probability keep[s], else alias[s]; all slots are equally likely.

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
