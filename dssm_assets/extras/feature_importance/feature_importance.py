"""Measures feature groups: fits the towers without a group and scores them on later days.

The towers are fitted without each group to the days before the validation days, and compared there with towers of all
features. A group is worth little if others can replace it, even if it carries much information.

Letters: V users, I items, D vector width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, ItemSets, Mask, row_blocks
from dssm_assets.core.config.model import Model, Targets
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.prior import append_one, append_prior
from dssm_assets.core.models.tower_spec import TowerSpec, tower_spec
from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.validation import ValidationSet, hit_rate, item_vectors, user_blocks, validation_set

_USERS: Final = 4096
"""Users with histories in memory at once."""


@dataclass(frozen=True)
class FeatureWorth:
    """Hit rates of towers without one group of features.

    Attributes:
        group: the group left out; None: all features.
        features: the names of its features.
        hit_rate: over all items.
        hit_rate_new: over items that are new to the user, in lists without items of the user's history.
        hit_rate_cold: over items without any earlier event, in lists of such items alone; None: none is to be found.
        pairs: (user, item) pairs behind each of the three rates.
    """

    group: str | None
    features: tuple[str, ...]
    hit_rate: float
    hit_rate_new: float | None
    hit_rate_cold: float | None
    pairs: int
    pairs_new: int
    pairs_cold: int


def leave_out_groups(
    open_data: Callable[[TowerSpec], TrainData],
    spec: TowerSpec,
    groups: Mapping[str, Sequence[str]],
    *,
    model: Model,
    training: Training,
    seed: int,
    k: int,
) -> Iterator[FeatureWorth]:
    """Yields the rates of towers with all features, then without each group.

    `open_data` returns the training data for towers of a specification.
    """
    searched = training.model_copy(update={"refit": False, "warm_start": False})
    for group, names in ((None, ()), *groups.items()):
        kept = tower_spec([feature for feature in spec.features if feature.name not in names], model)
        data = open_data(kept)
        first_day = data.num_days - searched.validation_days
        result = fit(data, model=model, training=searched, seed=seed, context=FitContext(ks=(k,)))
        yield _score(result, data, first_day, group, tuple(names), k)


def _score(
    result: FitResult, data: TrainData, first_day: int, group: str | None, names: tuple[str, ...], k: int
) -> FeatureWorth:
    every = validation_set(data, first_day)
    items, codes, prior = item_vectors(result.two_tower, every), result.group_codes, result.prior
    if codes is not None:  # items without events have the codes of their groups
        items = codes.fill_in(items, data.item_keys(codes.features))
    if prior is not None:
        items = append_prior(items, PriorSearch.from_days_before(data, first_day).item_values(prior))

    def users_of(chosen: ValidationSet) -> Iterator[FloatArray]:
        blocks = user_blocks(result.two_tower, chosen)
        return blocks if prior is None else (append_one(block) for block in blocks)

    rows = data.rows_of_days(first_day, data.num_days, targets=Targets.NEW)
    new = validation_set(data, first_day, Targets.NEW) if len(rows) else None
    is_cold = events_before(data, first_day) == 0
    cold = only_items(every.truth, is_cold)
    return FeatureWorth(
        group=group,
        features=names,
        hit_rate=hit_rate(users_of(every), items, every.truth, k),
        hit_rate_new=None if new is None else hit_rate(users_of(new), items, new.truth, k, new.excluded),
        hit_rate_cold=hit_rate(users_of(every), items[is_cold], cold, k) if len(cold.items) else None,
        pairs=len(every.truth.items),
        pairs_new=0 if new is None else len(new.truth.items),
        pairs_cold=len(cold.items),
    )


def events_before(data: TrainData, day: int) -> IntArray:
    """Counts the events of each item in all histories before a day of the window [I]."""
    ends, counts = data.user_ends(day), np.zeros(data.num_items, np.int64)
    for users in row_blocks(len(ends), _USERS):
        items, _ = data.known_items(users, ends)
        counts += np.bincount(items[items >= 0], minlength=data.num_items)
    return counts


def only_items(truth: ItemSets, is_kept: Mask) -> ItemSets:
    """Returns the truth of the same users on a smaller corpus, the items of a mask, bool [I].

    By hand: of items 0, 1, 2 the last two are kept, as 0 and 1. A user with the truth 0 and 2 has the truth 1.
    """
    inside = is_kept[truth.items]
    return ItemSets.of_pairs(truth.users[inside], (np.cumsum(is_kept) - 1)[truth.items[inside]], len(truth.lengths))
