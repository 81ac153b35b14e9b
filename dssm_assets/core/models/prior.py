"""A popularity prior of items. One more dimension of the vectors adds it to the inner product.

    score = u . v + p = (u, 1) . (v, p)

Letters: I items, n positive samples, D vector width.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.config.section import Section
from dssm_assets.core.models.poolings import MS_PER_DAY

HALF_LIVES: Final = (1 / 48, 1 / 12, 0.25, 0.5, 1.0, 3.0, 7.0, 30.0, 90.0)
"""Half-lives to try, in days: from half an hour to a quarter of a year."""
DAYS_OF_WEEK: Final = 7
_SMOOTHING: Final = 0.3
"""Added to a decayed count before its logarithm, so that an item without interactions has a finite value."""


class Prior(Section):
    """The strengths of the prior, in units of the inner product."""

    popularity: float = Field(description="Weight of ln(count + 1), the count of an item's positive samples.")
    recent: float = Field(description="Weight of ln(decayed count + 0.3).")
    half_life_days: float = Field(description="Half-life in days of a positive sample in the decayed count; may be below 1.")
    growth: float = Field(
        default=0.0, description="Weight of ln((n + 1) / (m + 1)): n samples of the last week, m of the week before."
    )

    def values_for(
        self,
        counts: npt.NDArray[np.float64],
        recent_counts: npt.NDArray[np.float64],
        growth: npt.NDArray[np.float64] | float = 0.0,
    ) -> FloatArray:
        """Returns the prior of every item, centred to mean 0, float32 [I].

        Example: with weights 1 and 0 and counts 0 and 1, ln 1 = 0 and ln 2 = .693 give -.347 and +.347.

        Args:
            counts: positive samples of each item [I].
            recent_counts: from `decayed_counts` with this half-life [I].
            growth: from `weekly_growth` [I].
        """
        values = self.popularity * np.log1p(counts) + self.recent * np.log(recent_counts + _SMOOTHING) + self.growth * growth
        return np.asarray(values - (values.mean() if len(values) else 0.0), np.float32)


def ages_in_days(time_ms: IntArray) -> npt.NDArray[np.float64]:
    """Returns the days from each event to the newest event [n].

    Ages do not count up to the moment of scoring. If times were whole days, all of yesterday's events would then be a day old,
    and with a short half-life they would count almost nothing.

    By hand: events at 18:00 and at 6:00 of one day have ages 0 and .5. With a half-life of 12 hours the second counts half.
    """
    times = np.asarray(time_ms, np.int64)
    return np.asarray((times.max(initial=np.iinfo(np.int64).min) - times) / MS_PER_DAY)


def decayed_counts(
    items: IntArray, age_days: npt.NDArray[np.float64] | IntArray, half_life_days: float, item_count: int
) -> npt.NDArray[np.float64]:
    """Returns each item's sum of 2 ** (-age / half-life) over its positive samples [I]. `items` and `age_days` are per sample [n]."""
    weights = np.exp2(-np.asarray(age_days, np.float64) / half_life_days)
    return np.bincount(items, weights=weights, minlength=item_count).astype(np.float64)


def weekly_growth(items: IntArray, age_days: npt.NDArray[np.float64] | IntArray, item_count: int) -> npt.NDArray[np.float64]:
    """Returns ln((n + 1) / (m + 1)) of each item's n positive samples younger than 7 days and m of the 7 days before [I].

    By hand: 3 samples in the last week after 1 have ln 2; none after 1 has -ln 2.
    """
    weeks = np.floor(np.asarray(age_days, np.float64) / DAYS_OF_WEEK)
    last, before = (np.bincount(items, weights=weeks == week, minlength=item_count) for week in (0, 1))
    return np.log1p(last) - np.log1p(before)


def append_prior(vectors: FloatArray, values: FloatArray) -> FloatArray:
    """Appends each item's prior to its vector. Returns [I, D + 1]."""
    return np.concatenate([vectors, values[:, None].astype(np.float32)], axis=1)


def append_one(vectors: FloatArray) -> FloatArray:
    """Appends a 1 to user vectors, as the factor of an item's prior. Returns [..., D + 1]."""
    ones = np.ones((*vectors.shape[:-1], 1), np.float32)
    return np.concatenate([vectors, ones], axis=-1)
