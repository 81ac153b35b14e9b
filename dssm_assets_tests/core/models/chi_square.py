"""Pearson's chi-square test, which the tests of all samplers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

LEAST_P = 1e-4
"""With a smaller p-value the draws do not follow the distribution. Seeds are fixed, so a test never flickers."""


def p_value(drawn: npt.NDArray[Any], distribution: npt.NDArray[np.float64]) -> float:
    """Returns the probability of draws at least this far from the distribution; 0 if one of them is impossible."""
    observed = np.bincount(drawn, minlength=len(distribution))
    possible = distribution > 0
    if observed[~possible].any():
        return 0.0
    expected = distribution[possible] * observed.sum()
    statistic = float(((observed[possible] - expected) ** 2 / expected).sum())
    degrees = int(possible.sum()) - 1
    return float(torch.special.gammaincc(torch.tensor(degrees / 2.0).double(), torch.tensor(statistic / 2).double()).item())
