"""What every sampler of negatives offers.

Letters: I items, N draws.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray


class NegativeSampler(Protocol):
    """Draws items of the corpus, with replacement, from a distribution that it discloses."""

    probability: npt.NDArray[np.float64]
    """The exact distribution, one entry per item [I]."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns N item indices and the probability of each; items may repeat."""
