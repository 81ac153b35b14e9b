"""Baseline `trend`: popular items whose events grow, this week over last.

Score of an item with n events in the window's last seven days and m in the seven before: n (n + 1) / (m + 1), the events of next week
if they grow as they did.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer
from dssm_assets.core.evaluation.interactions import Interactions

DAYS: Final = 7


def fit(data: FitData) -> Arrays:
    """Returns all items by score, highest first, then by events in the window.

    By hand: of 3 events after 1, 4 after 4 and 2 after none, the scores are 6, 4 and 6.
    """
    now = data.read_item_events(DAYS)
    before = data.read_item_events(2 * DAYS) - now
    return {"order": np.lexsort((-data.window_events, -now * (now + 1) / (before + 1)))}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> PopularityScorer:
    return PopularityScorer("trend", arrays["order"])
