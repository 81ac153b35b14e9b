"""Compares rates of groups of people: the difference of two ratios with its interval, and the p of a sample ratio.

People are the unit, because what a person takes from one list tells of the person's other lists. A rate is a ratio of two
sums over people (taken / lists), whose variance the delta method gives (Deng, Knoblich and Lu, "Applying the Delta Method in
Metric Analytics", KDD 2018, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr

_NORMAL_95: Final = 1.959963984540054
OFF_RATIO: Final = 0.0005
"""Groups whose sizes have a smaller p were not drawn as configured."""


@dataclass(frozen=True)
class Ratio:
    """A rate over people and its variance; both are NaN without people, the variance with one."""

    value: float
    variance: float

    @classmethod
    def of_people(cls, counts: NDArray[Any], sizes: NDArray[Any]) -> Ratio:
        """Returns sum(counts) / sum(sizes); both have one number per person, [P].

        The residual of a person is count - rate * size; the variance is P / (P - 1) * sum(residual ** 2) / sum(sizes) ** 2.
        """
        people, total = len(sizes), float(sizes.sum())
        if not total:
            return cls(float("nan"), float("nan"))
        rate = float(counts.sum()) / total
        residuals = float(np.square(counts - rate * sizes).sum())
        return cls(rate, residuals * people / (people - 1) / total**2 if people > 1 else float("nan"))


@dataclass(frozen=True)
class Difference:
    """The difference of two rates, its 95% interval, and the p of "there is none", two-sided."""

    value: float
    low: float
    high: float
    p: float


def compare(control: Ratio, other: Ratio) -> Difference:
    """Returns other - control; the people of both are independent."""
    value, error = other.value - control.value, float(np.sqrt(control.variance + other.variance))
    p = 2 * float(ndtr(-abs(value) / error)) if error else float(value == 0)
    return Difference(value, value - _NORMAL_95 * error, value + _NORMAL_95 * error, p)


def sample_ratio_p(people: Sequence[int], shares: Sequence[float]) -> float:
    """Returns the p of Pearson's chi-square test that groups of these sizes were drawn with these shares, of any sum."""
    expected = np.asarray(shares, np.float64) / sum(shares) * sum(people)
    return float(chdtrc(len(people) - 1, (np.square(people - expected) / expected).sum()))
