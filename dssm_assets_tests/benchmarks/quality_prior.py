"""The popularity prior of a split: the product's prior, and the product's choice of it.

It is chosen once on the inner split and then fixed (`quality_settings.py`). A choice on the training part would be biased,
because the popularity features of items already contain its counts.

Belongs here: counts of a split for `core/models/prior.py` and `core/training/closed_form/prior_choice.py`.
"""

from __future__ import annotations

import numpy as np

from dssm_assets.core.models.prior import Prior, append_one, append_prior, decayed_counts
from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
from dssm_assets_tests.benchmarks.quality_features import popularity
from dssm_assets_tests.benchmarks.quality_scores import ByVectors, K
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Ints, Split


def add_prior(vectors: ByVectors, split: Split, prior: Prior | None) -> ByVectors:
    """Returns the vectors with the prior in one more dimension; without a prior unchanged."""
    if prior is None:
        return vectors
    recent = decayed_counts(split.item, _age_days(split), prior.half_life_days, len(split.item_ids))
    values = prior.values_for(popularity(split), recent)
    return ByVectors(append_one(vectors.users), append_prior(vectors.items, values), vectors.metric)


def best_prior(vectors: ByVectors, split: Split, temperature: float) -> Prior:
    """Returns the prior with which these vectors recall most of the split's truth."""
    search = PriorSearch.from_samples(split.item, _age_days(split), len(split.item_ids))
    users = vectors.users[split.eval_users]
    return search.choose(users, vectors.items, split.truth_row, split.truth_item, scale=1.0 / temperature, k=K)


def _age_days(split: Split) -> Ints:
    """Returns the whole days from each training event to the end of the training part, 1 for the last day [E]."""
    day = split.time_s // SECONDS_PER_DAY
    return np.asarray(day.max() + 1 - day)
