"""Trend by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines import trend
from dssm_assets.testing import fit_data
from dssm_assets_tests.core.evaluation.baselines.small_world import ITEMS, USERS, WINDOW
from dssm_assets_tests.core.evaluation.worlds import interactions


def test_items_that_grow_come_first_by_hand() -> None:
    window = interactions(WINDOW, USERS, ITEMS)  # events: a 5, b 2, c 2, d 1
    weeks = {7: np.array([1, 2, 2, 1, 0, 0]), 14: np.array([5, 3, 2, 1, 0, 0])}
    data = replace(fit_data(window, window, window, Evaluation()), read_item_events=weeks.__getitem__)
    # a 1 * 2 / 5, b 2 * 3 / 2, c 2 * 3 / 1, d 1 * 2 / 1; e and f 0, by index
    scorer = trend.scorer(trend.fit(data), window, window)
    assert scorer.top_items(np.arange(2), 6).tolist() == [[2, 1, 3, 0, 4, 5]] * 2
