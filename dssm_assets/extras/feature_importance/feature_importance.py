"""Measures feature groups: fits the towers without a group and scores them on later days.

For each group, the towers are fitted without it to the days before the validation days. Their hit rates on the validation
days are compared with the rates of towers with all features. A group adds little if other groups carry the same information.

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
from dssm_assets.core.training.validation import ValidationSet, hit_rate, item_vectors, user_blocks

_USERS: Final = 4096
"""Histories of so many users are in memory at once."""


@dataclass(frozen=True)
class FeatureWorth:
    """Hit rates of towers without one group of features.

    Attributes:
        group: the group left out. None: the towers have all features.
        features: the names of the group's features.
        hit_rate: the hit rate over all items.
        hit_rate_new: the hit rate over items that are new to the user. The lists leave out the user's history.
        hit_rate_cold: the hit rate over items without any earlier event. The lists hold such items only. None: there are no pairs.
        pairs: the number of (user, item) pairs behind each of the three rates.
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
    """Yields the hit rates of towers with all features, then of towers without each group.

    `open_data` reads the training data that a tower specification needs.
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
    every = ValidationSet(data, first_day)
    items, codes, prior = item_vectors(result.two_tower, every), result.group_codes, result.prior
    if codes is not None:  # items without events get the code of their group
        items = codes.fill_in(items, data.item_keys(codes.features))
    if prior is not None:
        items = append_prior(items, PriorSearch.from_days_before(data, first_day).item_values(prior))

    def users_of(chosen: ValidationSet) -> Iterator[FloatArray]:
        blocks = user_blocks(result.two_tower, chosen)
        return blocks if prior is None else (append_one(block) for block in blocks)

    rows = data.rows_of_days(first_day, data.num_days, targets=Targets.NEW)
    new = ValidationSet(data, first_day, Targets.NEW) if len(rows) else None
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
    """Counts each item's events before a day of the window, over all histories [I]."""
    ends, counts = data.user_ends(day), np.zeros(data.num_items, np.int64)
    for users in row_blocks(len(ends), _USERS):
        items, _ = data.known_items(users, ends)
        counts += np.bincount(items[items >= 0], minlength=data.num_items)
    return counts


def only_items(truth: ItemSets, is_kept: Mask) -> ItemSets:
    """Restricts each user's truth to the items of a mask, bool [I], and numbers the kept items from 0.

    Example: of items 0, 1, 2 the last two are kept and become 0 and 1. A user's truth {0, 2} becomes {1}.
    """
    inside = is_kept[truth.items]
    return ItemSets.of_pairs(truth.users[inside], (np.cumsum(is_kept) - 1)[truth.items[inside]], len(truth.lengths))
