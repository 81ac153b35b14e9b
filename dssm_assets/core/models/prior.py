"""A popularity prior of the items in one dimension more: the inner product of widened vectors adds it to the score.

Belongs here: the prior's numbers and the widening. Does not belong here: choosing its strengths (`training`), storing
vectors (`steps/vectors`).

    score = u . v + p        (u, 1) . (v, p) = u . v + p

Letters: I items, n positive samples, D vector width.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.config.section import Section

"""The file of a stored model that holds its prior."""
_NEVER: Final = 0.3
"""Added to a decayed count before its logarithm: what was never taken is not infinitely far behind what was taken once."""


class Prior(Section):
    """How much popularity is worth, in units of the two vectors' product.

    Attributes:
        popularity: weight of ln(count + 1).
        recent: weight of ln(recent count + 0.3).
        half_life_days: of a positive sample in the recent count.
    """

    popularity: float
    recent: float
    half_life_days: float

    def prior_of(self, counts: npt.NDArray[np.float64], recent_counts: npt.NDArray[np.float64]) -> FloatArray:
        """Returns the prior of every item less the mean of all, float32 [I].

        By hand, with weights 1 and 0 and counts 0 and 1: ln 1 = 0 and ln 2 = .693, so -.347 and +.347.

        Args:
            counts: positive samples of each item [I].
            recent_counts: as `recent_counts` gives them, with this half-life [I].
        """
        values = self.popularity * np.log1p(counts) + self.recent * np.log(recent_counts + _NEVER)
        return np.asarray(values - (values.mean() if len(values) else 0.0), np.float32)

    def to_json(self) -> str:
        """Returns the prior as JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Prior:
        """Returns the prior that `to_json` wrote."""
        return cls.model_validate_json(text)


def recent_counts(
    items: IntArray, age_days: npt.NDArray[np.float64] | IntArray, half_life_days: float, item_count: int
) -> npt.NDArray[np.float64]:
    """Returns of each item the sum of 2 ** (-age / half-life) over its positive samples [I].

    Args:
        items: item_index of each positive sample [n].
        age_days: whole days from a sample's day to the day that is scored, 1 for the day before [n].
        half_life_days: days in which a sample's share halves.
        item_count: I.
    """
    shares = np.exp2(-np.asarray(age_days, np.float64) / half_life_days)
    return np.bincount(items, weights=shares, minlength=item_count).astype(np.float64)


def with_prior(vectors: FloatArray, values: FloatArray) -> FloatArray:
    """Returns item vectors [I, D + 1]: each with its prior behind it."""
    return np.concatenate([vectors, values[:, None].astype(np.float32)], axis=1)


def with_one(vectors: FloatArray) -> FloatArray:
    """Returns user vectors [..., D + 1]: each with a 1 behind it, which takes an item's prior as it is."""
    ones = np.ones((*vectors.shape[:-1], 1), np.float32)
    return np.concatenate([vectors, ones], axis=-1)
