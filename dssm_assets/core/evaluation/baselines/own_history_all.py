"""Baseline `own_history_all`: everything the user ever interacted with, most often first, then popular items."""

from __future__ import annotations

from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.own_history_window import OwnHistoryScorer, own_history_scorer
from dssm_assets.core.evaluation.interactions import Interactions


def fit(data: FitData) -> Arrays:
    """Returns the popularity order, from which lists are filled up."""
    return {"order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> OwnHistoryScorer:
    """Returns the scorer of the users of the whole history."""
    return own_history_scorer("own_history_all", history, arrays["order"])
