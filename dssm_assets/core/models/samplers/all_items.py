"""Every item of the corpus as a negative: a softmax over all items, without a draw.

Letters: I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.samplers.uniform import UniformSampler


class AllItemsSampler(UniformSampler):
    """Returns each item once. With probability 1 / I and I draws, the logQ correction of every item is 0."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns all item indices, ascending, and the probability of each [I]; neither argument is used."""
        del count, rng
        return np.arange(len(self.probability), dtype=np.int64), self.probability
