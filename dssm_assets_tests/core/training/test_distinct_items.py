"""Equal items merged: the same loss and gradients, by the whole batch and by hand."""

from __future__ import annotations

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
from dssm_assets.core.models.losses.loss_terms import LossTerms, MaskedPairs
from dssm_assets.core.models.losses.softmax import softmax_loss
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.distinct_items import find_equal_rows, merge_columns
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, world


def _inputs(singles: list[list[int]], bags: list[list[int]]) -> TowerInput:
    values = np.array([value for bag in bags for value in bag], np.int64)
    lengths = np.array([len(bag) for bag in bags], np.int64)
    weights = np.ones(len(values), np.float32)
    return TowerInput(np.array(singles, np.int64), (Bags(values, offsets_of(lengths), weights),))


def test_equal_rows_have_equal_item_values_and_bags() -> None:
    # 0 = 3; 1 differs in the item, 2 in a single value, 4 in the order of its bag, 5 has none.
    inputs = _inputs([[1, 2], [1, 2], [2, 1], [1, 2], [1, 2], [1, 2]], [[5, 6], [5, 6], [5, 6], [5, 6], [6, 5], []])
    first, kind = find_equal_rows(inputs, np.array([7, 8, 7, 7, 7, 7]))
    assert (first.tolist(), kind.tolist()) == ([0, 1, 2, 4, 5], [0, 1, 2, 0, 3, 4])


def test_rows_that_differ_in_a_weight_are_not_equal() -> None:
    bag = Bags(np.array([5, 5, 5]), np.array([0, 1, 2, 3]), np.array([1.0, -1.0, 1.0], np.float32))
    first, kind = find_equal_rows(TowerInput(np.zeros((3, 0), np.int64), (bag,)), np.array([3, 3, 3]))
    assert (first.tolist(), kind.tolist()) == ([0, 1], [0, 1, 0])


@given(rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.lists(st.integers(1, 2), max_size=2)), max_size=12))
def test_equal_rows_by_brute_force(rows: list[tuple[int, int, list[int]]]) -> None:
    inputs = _inputs([[single] for _, single, _ in rows] or np.zeros((0, 1)).tolist(), [bag for _, _, bag in rows])
    inputs = inputs if rows else TowerInput(np.zeros((0, 1), np.int64), inputs.bags)
    first, kind = find_equal_rows(inputs, np.array([item for item, _, _ in rows], np.int64))
    assert [rows[first[k]] for k in kind] == rows
    assert first.tolist() == [k for k, row in enumerate(rows) if row not in rows[:k]]


def test_merged_correction_by_hand() -> None:
    # Columns 0 and 2 become one: exp(-log 2) + exp(-log 6) = 2/3; the queued one stays behind.
    correction = torch.tensor(np.log([2.0, 5.0, 6.0, 7.0]))
    masked = MaskedPairs(np.array([0, 0, 1]), np.array([0, 2, 3]))
    terms = merge_columns(LossTerms(torch.zeros(2), correction, torch.ones(2), masked, 8), np.array([0, 1, 0]), 2)
    assert terms.column_correction.tolist() == pytest.approx(np.log([1.5, 5.0, 7.0]), abs=1e-6)
    assert terms.masked.columns.tolist() == [0, 0, 2]


def _batches(model: Model) -> tuple[TwoTower, list[Batch]]:
    spec = tower_spec(FEATURES, model)
    training = Training(batch_size=32, logits_chunk_rows=10)
    data = world().data(spec)
    rows = np.arange(data.num_samples)
    found = list(epoch_batches(data, rows, model=model, training=training, seed=3, epoch=0))
    return TwoTower(spec, torch.Generator().manual_seed(1)), found


@settings(max_examples=8, deadline=None)
@given(in_batch=st.booleans(), sampler=st.sampled_from(["uniform", "v2"]), logq=st.sampled_from([0.0, 1.0]))
def test_merged_items_give_the_loss_and_gradients_of_the_batch(in_batch: bool, sampler: str, logq: float) -> None:
    model = Model(**{**SMALL_MODEL, "in_batch": in_batch, "sampler": sampler, "logq": logq, "num_sample": 30})
    towers, batches = _batches(model)
    found: list[Any] = []
    for is_merged in (True, False):
        towers.zero_grad()
        losses = []
        for batch in batches:
            side, count = batch.item_side(model), len(batch.user)
            assert len(side.items) < len(batch.items)
            user = towers.user_vectors(batch.user, None, None)
            items = towers.item_vectors(side.items if is_merged else batch.items, None, None)
            own = items[torch.from_numpy(side.own)] if is_merged else items[:count]
            columns = items[side.columns] if is_merged else items[0 if in_batch else count :]
            loss = softmax_loss(user, own, columns, items[:0], side.terms if is_merged else batch.terms, 3.0)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        found.append((losses, [parameter.grad.clone() for parameter in towers.parameters() if parameter.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for mine, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("changes", [{"loss": "sigmoid"}, {"norm": Norm.BATCH}, {"collision_mask": False}])
def test_items_are_not_merged_where_their_number_counts(changes: dict[str, Any]) -> None:
    model = Model(**{**SMALL_MODEL, **changes})
    batch = _batches(model)[1][0]
    side = batch.item_side(model)
    assert side.items is batch.items
    assert side.terms is batch.terms
    assert (side.own.tolist(), side.columns) == (list(range(32)), slice(0, 40))
