"""Masks and corrections of a batch's negatives by hand and by brute force; equal columns merged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.config.model import Model, Norm
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.losses import LossTerms, MaskedPairs, softmax_loss
from dssm_assets.core.models.tower_input import TowerInput, find_equal_rows
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batch_negatives import (
    expand_to_members,
    log_expected_counts,
    matching_pairs,
    merge_columns,
    merge_pairs,
)
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, world


def test_merged_pairs_are_sorted_by_row() -> None:
    both = merge_pairs(MaskedPairs(np.arange(2), np.arange(2)), matching_pairs(np.array([0]), np.array([5]), np.array([4, 5])))
    assert both.rows.tolist() == [0, 0, 1]
    assert both.columns.tolist() == [0, 1, 1]


@given(
    known=st.lists(st.lists(st.integers(-1, 5), max_size=6), min_size=1, max_size=5),
    columns=st.lists(st.integers(0, 5), max_size=8),
)
def test_matching_pairs_equal_brute_force(known: list[list[int]], columns: list[int]) -> None:
    rows = np.repeat(np.arange(len(known)), [len(items) for items in known])
    items = np.array([item for row in known for item in row], np.int64)
    pairs = matching_pairs(rows, items, np.array(columns, np.int64))
    expected = {(i, j) for i, row in enumerate(known) for j, column in enumerate(columns) if column in row}
    assert set(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == expected


def test_rows_get_the_cells_of_their_group() -> None:
    cells = MaskedPairs(np.array([0, 1, 1]), np.array([5, 7, 8]))
    found = expand_to_members(cells, np.array([1, 0, 1]), 3)
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == [(0, 7), (0, 8), (1, 5), (2, 7), (2, 8)]
    assert not len(expand_to_members(cells, np.array([2, 2]), 3).rows)


def test_correction_is_strength_times_log_of_the_expected_count() -> None:
    # 8 draws contain an item of probability 1/4 twice on average.
    assert log_expected_counts(np.array([0.25, 0.125]), 8, 1.0) == pytest.approx([math.log(2), 0.0])
    assert log_expected_counts(np.array([0.25]), 8, 0.5) == pytest.approx([math.log(2) / 2])


def test_strength_zero_corrects_nothing_even_for_items_of_probability_zero() -> None:
    assert log_expected_counts(np.array([0.0, 0.5]), 8, 0.0).tolist() == [0.0, 0.0]


def test_an_item_with_its_features_of_another_day_is_the_same_column() -> None:
    for batch in _batches(Model(**SMALL_MODEL))[1]:
        rows = [
            (*batch.items.singles[row].tolist(), *(tuple(_values(bag, row)) for bag in batch.items.bags))
            for row in range(batch.num_shared)
        ]
        assert len(set(rows)) == len(rows)  # the item's id is among its features


def _values(bag: Bags, row: int) -> Iterator[tuple[int, float]]:
    at = slice(bag.offsets[row], bag.offsets[row + 1])
    return zip(bag.values[at].tolist(), bag.weights[at].tolist(), strict=True)


def test_rows_with_other_values_features_weights_or_lengths_are_not_equal() -> None:
    rows: list[tuple[list[int], list[tuple[int, float]], list[tuple[int, float]]]] = [
        ([1, 2], [(3, 1.0)], []),
        ([2, 1], [(3, 1.0)], []),
        ([1, 2], [], [(3, 1.0)]),
        ([1, 2], [(3, 0.5)], []),
        ([1, 2], [(3, 1.0)], []),
        ([1, 2], [(3, 0.5), (4, 0.5)], []),
        ([1, 2], [(4, 0.5), (3, 0.5)], []),
    ]
    bags = []
    for of_rows in ([row[1] for row in rows], [row[2] for row in rows]):
        values, weights = (np.array([pair[k] for one in of_rows for pair in one]) for k in (0, 1))
        bags.append(Bags(values.astype(np.int64), offsets_of([len(one) for one in of_rows]), weights.astype(np.float32)))
    first, group = find_equal_rows(TowerInput(np.array([row[0] for row in rows]), tuple(bags)))
    assert (first.tolist(), group.tolist()) == ([0, 1, 2, 3, 5, 6], [0, 1, 2, 3, 0, 4, 5])


def test_merged_correction_by_hand() -> None:
    # Columns 0 and 2 become one: exp(-log 2) + exp(-log 6) = 2/3.
    correction = torch.tensor(np.log([2.0, 5.0, 6.0]))
    masked = MaskedPairs(np.array([0, 0, 1]), np.array([0, 2, 1]))
    terms = merge_columns(LossTerms(torch.zeros(2), correction, torch.ones(2), masked), np.array([0, 1, 0]), 2)
    assert terms.column_correction.tolist() == pytest.approx(np.log([1.5, 5.0]), abs=1e-6)
    assert terms.masked.columns.tolist() == [0, 0, 1]


def _batches(model: Model) -> tuple[TwoTower, list[Batch]]:
    spec = tower_spec(FEATURES, model)
    training = Training(batch_size=32)
    data = world().data(spec)
    rows = np.arange(data.num_samples)
    found = list(epoch_batches(data, rows, model=model, training=training, seed=3, epoch=0))
    return TwoTower(spec, torch.Generator().manual_seed(1)), found


@settings(max_examples=8, deadline=None)
@given(
    in_batch=st.booleans(),
    sampler=st.sampled_from(["uniform", "v2"]),
    logq=st.sampled_from([0.0, 1.0]),
    snapshot=st.sampled_from(["sample", "corpus"]),
)
def test_merged_items_give_the_loss_and_gradients_of_the_batch(
    in_batch: bool, sampler: str, logq: float, snapshot: str
) -> None:
    changes = {"in_batch": in_batch, "sampler": sampler, "logq": logq, "num_sample": 30, "item_snapshot": snapshot}
    model = Model(**{**SMALL_MODEL, **changes})
    found: list[Any] = []
    sizes: list[int] = []
    for is_merged in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dssm_assets.core.training.batches.can_merge_items", lambda model, is_merged=is_merged: is_merged)
            towers, batches = _batches(model)
        losses = []
        for batch in batches:
            sizes.append(len(batch.items))
            user, items = towers.user_vectors(batch.user), towers.item_vectors(batch.items)
            loss = softmax_loss(user, items[batch.own], items[batch.columns], items[:0], batch.terms, 3.0)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        found.append((losses, [parameter.grad.clone() for parameter in towers.parameters() if parameter.grad is not None]))
    assert all(merged < whole for merged, whole in zip(sizes[:3], sizes[3:], strict=True))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for mine, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("changes", [{"loss": "sigmoid"}, {"norm": Norm.BATCH}])
def test_items_are_not_merged_where_their_number_counts(changes: dict[str, Any]) -> None:
    batch = _batches(Model(**{**SMALL_MODEL, **changes}))[1][0]
    assert (batch.own.tolist(), batch.columns, len(batch.items)) == (list(range(32)), slice(0, 40), 40)
