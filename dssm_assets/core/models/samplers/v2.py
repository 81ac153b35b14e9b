"""Negatives by weight of which those do not count for a row that its user is known to have taken.

The exclusion happens at the logits, for in-batch and sampled columns alike, and never by drawing again: the columns are
shared by all rows, and what one row's user took is a fine negative of the others. No exclusion can be lost, and items
that nobody took are drawn as well.

Belongs here: `V2Sampler` and the law of what counts. Does not belong here: finding the cells (`losses/masks`).

Letters: I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.samplers.weighted import WeightedSampler


class V2Sampler(WeightedSampler):
    """Draws item indices by weight over the whole corpus."""

    def counted_probability(self, taken: IntArray) -> npt.NDArray[np.float64]:
        """Returns the law of the draws that count for a user who took these items [I]; all 0 if it took every item.

        The correction of a column stays that of `probability`: how often an item that counts is met is not changed by
        others that do not.
        """
        law = self.probability.copy()
        law[taken[taken >= 0]] = 0.0
        total = law.sum()
        return law / total if total > 0 else law
