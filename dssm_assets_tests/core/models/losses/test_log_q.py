"""The correction by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dssm_assets.core.models.losses.log_q import log_expected_counts


def test_correction_is_strength_times_log_of_the_expected_count() -> None:
    # 8 columns of an item with probability 1/4 hold it twice on average.
    assert log_expected_counts(np.array([0.25, 0.125]), 8, 1.0) == pytest.approx([math.log(2), 0.0])
    assert log_expected_counts(np.array([0.25]), 8, 0.5) == pytest.approx([math.log(2) / 2])


def test_no_strength_takes_nothing_off_even_of_items_that_cannot_be_drawn() -> None:
    assert log_expected_counts(np.array([0.0, 0.5]), 8, 0.0).tolist() == [0.0, 0.0]


def test_corrected_columns_estimate_the_full_softmax_without_bias() -> None:
    """The mean over draws of sum exp(s - log expected count) is the sum over all items of exp(s)."""
    rng = np.random.default_rng(0)
    scores, probability = np.array([0.1, 1.0, -0.5]), np.array([0.6, 0.3, 0.1])
    drawn = rng.choice(3, size=(20_000, 16), p=probability)
    correction = log_expected_counts(probability, 16, 1.0).astype(np.float64)
    estimate = np.exp(scores - correction)[drawn].sum(1).mean()
    assert estimate == pytest.approx(np.exp(scores).sum(), rel=0.01)
