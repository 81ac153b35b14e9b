"""Baseline `recent_popularity`: the items with the most positive events in the last days of the window."""

from __future__ import annotations

from dssm_assets.core.evaluation.baselines.fill import order_by_events
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer
from dssm_assets.core.evaluation.interactions import Interactions


def fit(data: FitData) -> Arrays:
    """Returns the items by their positive events in the last `evaluation.recent_days` days."""
    return {"order": order_by_events(data.recent_events)}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> PopularityScorer:
    """Returns the scorer of any users."""
    return PopularityScorer("recent_popularity", arrays["order"])
