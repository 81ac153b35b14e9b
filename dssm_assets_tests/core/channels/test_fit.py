"""Fitted weights: known ones are found, few pairs change little, missing channels count by default."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.channels.fit import HeldOutDay, fit_logistic, fit_merges
from dssm_assets.core.channels.merge import (
    DEFAULT_WEIGHTS,
    IS_OWN_ITEM,
    RANK_OF_NEIGHBORS,
    RANK_OF_VECTORS,
    SIMILARITY_OF_NEIGHBORS,
    Term,
    default_merges,
)
from dssm_assets.core.config.channels import ChannelName
from dssm_assets_tests.core.channels import worlds

NAMES = tuple(ChannelName)


def test_logistic_regression_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(40_000, 3)) * [1.0, 3.0, 0.5] + [0.0, 2.0, 0.0]
    odds = -1.5 + values @ [0.8, -0.4, 0.0]
    is_positive = rng.random(len(values)) < 1 / (1 + np.exp(-odds))
    intercept, weights = fit_logistic(values, is_positive, np.ones(len(values)), np.zeros(3))
    assert intercept == pytest.approx(-1.5, abs=0.06)
    assert weights == pytest.approx([0.8, -0.4, 0.0], abs=0.05)


def test_a_signal_that_never_varies_keeps_its_default() -> None:
    values = np.stack([np.ones(50), np.arange(50.0)], axis=1)
    _, weights = fit_logistic(values, np.arange(50) > 25, np.ones(50), np.array([0.7, 0.0]))
    assert weights[0] == 0.7
    assert weights[1] > 0


def held_out(taken: list[int], *, has_vectors: bool = True, users: int = 2) -> HeldOutDay:
    """User 0 took the given items, the others nothing that counts."""
    starts = np.array([0, *[len(taken)] * users])
    return HeldOutDay(worlds.channels(has_vectors=has_vectors), ItemSets(starts, np.array(taken)))


def test_own_items_that_are_taken_raise_the_weight_of_own_items() -> None:
    term = Term(IS_OWN_ITEM)
    often = fit_merges([held_out([0, 1])] * 30, default_merges(NAMES))[0].weights[term]
    never = fit_merges([held_out([2, 5])] * 30, default_merges(NAMES))[0].weights[term]
    assert never < DEFAULT_WEIGHTS[term] < often


def test_a_user_without_pairs_is_left_out() -> None:
    one, two = (fit_merges([held_out([0, 2], users=users)] * 9, default_merges(NAMES)) for users in (1, 2))
    assert one == two


def test_vectors_take_the_weight_of_neighbors_if_held_out_days_have_none() -> None:
    merges = {merge.name: merge for merge in fit_merges([held_out([0, 2], has_vectors=False)] * 9, default_merges(NAMES))}
    vectors, neighbors = Term(RANK_OF_VECTORS), Term(RANK_OF_NEIGHBORS)
    own, fitted = Term(RANK_OF_VECTORS, IS_OWN_ITEM), merges["merged_without_vectors"].weights[neighbors]
    assert fitted > DEFAULT_WEIGHTS[neighbors]
    merged = merges["merged"].weights
    assert merged[vectors] == -merged[own] > DEFAULT_WEIGHTS[neighbors]
    assert (merged[neighbors], merged[Term(SIMILARITY_OF_NEIGHBORS)]) == (0.0, 0.0)
    alone = merges["merged_without_item_to_item"].weights
    assert (alone[vectors], alone[own]) == (DEFAULT_WEIGHTS[vectors], -DEFAULT_WEIGHTS[vectors])
    assert merged[Term(IS_OWN_ITEM)] != DEFAULT_WEIGHTS[Term(IS_OWN_ITEM)]
