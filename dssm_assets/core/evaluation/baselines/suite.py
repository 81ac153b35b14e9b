"""All baselines of a run, fitted from the same three sets of interactions.

Belongs here: which baselines there are and what each is fitted on. Does not belong here: how one ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from dssm_assets.core.evaluation.baselines.fill import order_by_events
from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_item_cooccurrence
from dssm_assets.core.evaluation.baselines.own_history import fit_own_history
from dssm_assets.core.evaluation.baselines.popularity import Popularity
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import Scorer, ScorerName
from dssm_assets.core.evaluation_config import Evaluation


def fit_baselines(window: Interactions, recent: Interactions, history: Interactions, settings: Evaluation) -> Sequence[Scorer]:
    """Returns every baseline, ready to score the evaluated users.

    Args:
        window: positives of the whole window.
        recent: positives of its last `recent_days` days.
        history: all positives before the evaluation day, the window included.
        settings: uses cooccurrence_neighbors.
    """
    popular = order_by_events(window.item_events())
    return (
        Popularity(ScorerName.POPULARITY, popular),
        Popularity(ScorerName.RECENT_POPULARITY, order_by_events(recent.item_events())),
        fit_item_cooccurrence(window, settings.cooccurrence_neighbors, popular),
        fit_own_history(ScorerName.OWN_HISTORY_WINDOW, window, popular),
        fit_own_history(ScorerName.OWN_HISTORY_ALL, history, popular),
    )
