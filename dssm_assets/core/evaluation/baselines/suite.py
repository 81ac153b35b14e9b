"""All baselines of a run, fitted from the same three sets of interactions.

Belongs here: which baselines there are and what each is fitted on. Does not belong here: how one ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines.fill import order_by_events
from dssm_assets.core.evaluation.baselines.item_cooccurrence import TakenTogether, fit_neighbors, item_cooccurrence, together_of
from dssm_assets.core.evaluation.baselines.popularity import Popularity, fit_own_history
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import Scorer, ScorerName


@dataclass(frozen=True)
class CommonBaselines:
    """What the baselines of all users have in common: small beside what users took, and made once.

    Attributes:
        popular: all items, most events in the window first [I].
        recent: all items, most events in its last days first [I].
        neighbors: csr [I, I], each item's most similar others.
    """

    popular: IntArray
    recent: IntArray
    neighbors: Any

    @classmethod
    def fit(
        cls, taken: TakenTogether, window_events: IntArray, recent_events: IntArray, settings: Evaluation
    ) -> CommonBaselines:
        """Returns what is common to all users, of what all took in memory; see `fit_baselines`."""
        neighbors = fit_neighbors(taken, settings.cooccurrence_neighbors)
        return cls(order_by_events(window_events), order_by_events(recent_events), neighbors)

    def for_users(self, window: Interactions, history: Interactions) -> Sequence[Scorer]:
        """Returns every baseline for the users of these interactions, which need be of no others."""
        return (
            Popularity(ScorerName.POPULARITY, self.popular),
            Popularity(ScorerName.RECENT_POPULARITY, self.recent),
            item_cooccurrence(window, self.neighbors, self.popular),
            fit_own_history(ScorerName.OWN_HISTORY_WINDOW, window, self.popular),
            fit_own_history(ScorerName.OWN_HISTORY_ALL, history, self.popular),
        )


def fit_baselines(window: Interactions, recent: Interactions, history: Interactions, settings: Evaluation) -> Sequence[Scorer]:
    """Returns every baseline, ready to score the evaluated users.

    Args:
        window: positives of the whole window.
        recent: positives of its last `recent_days` days.
        history: all positives before the evaluation day, the window included.
        settings: uses cooccurrence_neighbors.
    """
    common = CommonBaselines.fit(together_of(window), window.item_events(), recent.item_events(), settings)
    return common.for_users(window, history)
