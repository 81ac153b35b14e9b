"""Masks by hand and by brute force, the logQ correction, and terms on a device."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.models.losses import loss_terms
from dssm_assets.core.models.losses.loss_terms import (
    MaskedPairs,
    at_least_float32,
    count_negatives,
    diagonal_pairs,
    expand_to_members,
    hard_by_row,
    log_expected_counts,
    matching_pairs,
    merge_pairs,
)
from dssm_assets.core.models.losses.softmax import softmax_loss
from dssm_assets_tests.core.models.losses.loss_batches import no_pairs, plain_terms, random_batch


def test_terms_move_their_tensors_to_a_device() -> None:
    terms = plain_terms(2, 3, [1])
    moved = terms.to(torch.device("meta"))
    for field in fields(terms):
        before, after = getattr(terms, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            assert (after.device.type, after.shape) == ("meta", before.shape)
        else:
            assert after is before


def test_no_hard_negatives_by_default() -> None:
    terms = plain_terms(2, 3, [])
    bare = type(terms)(terms.positive_correction, terms.column_correction, terms.weight, terms.masked, 2)
    assert (len(bare.hard_rows), len(bare.hard_correction)) == (0, 0)


def test_collisions_in_batch_and_sampled_by_hand() -> None:
    # Batch items 7, 8, 7; sampled 8, 9: rows 0 and 2 collide with each other, row 1 with the first sampled column.
    pairs = matching_pairs(np.arange(3), np.array([7, 8, 7]), np.array([7, 8, 7, 8, 9]))
    assert list(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (1, 1),
        (1, 3),
        (2, 0),
        (2, 2),
    ]


def test_item_outside_the_corpus_matches_no_column() -> None:
    assert len(matching_pairs(np.array([0]), np.array([-1]), np.array([0, 1])).rows) == 0


def test_merged_pairs_are_sorted_by_row() -> None:
    both = merge_pairs(diagonal_pairs(2), matching_pairs(np.array([0]), np.array([5]), np.array([4, 5])))
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


def test_corrected_columns_estimate_the_full_softmax_without_bias() -> None:
    """The mean over draws of sum exp(s - log expected count) is the sum over all items of exp(s)."""
    rng = np.random.default_rng(0)
    scores, probability = np.array([0.1, 1.0, -0.5]), np.array([0.6, 0.3, 0.1])
    drawn = rng.choice(3, size=(20_000, 16), p=probability)
    correction = log_expected_counts(probability, 16, 1.0).astype(np.float64)
    estimate = np.exp(scores - correction)[drawn].sum(1).mean()
    assert estimate == pytest.approx(np.exp(scores).sum(), rel=0.01)


MASKED = MaskedPairs(np.array([0, 2, 2, 2]), np.array([1, 0, 2, 2]))


def test_a_column_masked_twice_is_left_out_of_the_count_once() -> None:
    assert count_negatives(plain_terms(3, 3, [1, 1], masked=MASKED), 3).tolist() == [2, 5, 1]
    assert count_negatives(plain_terms(2, 0, [], masked=no_pairs()), 0).tolist() == [0, 0]


def test_hard_negatives_row_by_row() -> None:
    cells = hard_by_row(torch.tensor([1.0, 2.0, 3.0]), plain_terms(3, 0, [2, 0, 2]), fill=-1.0)
    assert cells.tolist() == [[2.0, -1.0], [-1.0, -1.0], [1.0, 3.0]]
    assert hard_by_row(torch.zeros(0), plain_terms(3, 0, []), fill=-1.0).shape == (3, 0)


def test_large_batches_are_computed_twice_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = random_batch(4, 9, 5, 4, 3), []
    for limit in (1 << 24, 0):
        monkeypatch.setattr(loss_terms, "_MAX_CELLS", limit)
        leaves = batch.leaves
        softmax_loss(*leaves, batch.terms, 2.0).backward()  # type: ignore[no-untyped-call]
        found.append([leaf.grad for leaf in leaves])
    for one, two in zip(*found, strict=True):
        assert one is not None and two is not None
        assert torch.equal(one, two)


def test_half_precision_becomes_float32_and_wider_types_stay() -> None:
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    wide = [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert wide == [torch.float32, torch.float32, torch.float32, torch.float64]
