"""Negatives drawn uniformly from the corpus.

Letters: I items, N draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.errors import Fault, SchemaError


class UniformSampler:
    """Draws item indices with probability 1 / I.

    Attributes:
        probability: the exact distribution, one entry per item [I].

    Raises:
        SchemaError: there is no item.
    """

    def __init__(self, num_items: int) -> None:
        if num_items < 1:
            raise SchemaError(Fault("table items", "at least one item", "none", "correct negative_items"))
        self.probability: npt.NDArray[np.float64] = np.full(num_items, 1.0 / num_items)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns N item indices and the probability of each; items may repeat."""
        item_index = rng.integers(len(self.probability), size=count)
        return item_index, self.probability[item_index]
