"""Batch norm by hand: figures of the batch in training, of what training has seen otherwise."""

from __future__ import annotations

import pytest
import torch

from dssm_assets.core.models.batch_norm import BatchNorm

COLUMN = torch.tensor([[1.0], [5.0]])


def test_training_divides_by_the_batch_and_remembers_a_tenth_of_it() -> None:
    norm = BatchNorm(1)
    # Mean 3, deviation 2. Remembered: .9 * 0 + .1 * 3, and .9 * 1 + .1 * 8 (the unbiased variance).
    assert norm(COLUMN, True).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.3, 1.7))
    # (5 - .3) / sqrt(1.7)
    assert norm(COLUMN, False)[1].item() == pytest.approx(4.7 / 1.7**0.5, rel=1e-4)
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.3, 1.7))


def test_a_batch_of_one_row_goes_by_what_was_seen() -> None:
    norm = BatchNorm(1)
    assert norm(torch.tensor([[2.0]]), True).item() == pytest.approx(2.0, rel=1e-4)
    assert norm.running_mean.item() == 0.0


def test_nothing_but_float32_is_kept() -> None:
    assert {name: values.dtype for name, values in BatchNorm(3).state_dict().items()} == dict.fromkeys(
        ("weight", "bias", "running_mean", "running_var"), torch.float32
    )


def test_of_a_shared_batch_the_figures_are_those_of_all_rows() -> None:
    # This process has the first row, another the second: it adds its sums of [value, row count] and of squares, 5, 1 and 4.
    theirs = iter([torch.tensor([5.0, 1.0]), torch.tensor([4.0])])
    shared, whole = BatchNorm(1), BatchNorm(1)
    shared.add_up = lambda sums: sums + next(theirs)
    expected = whole(COLUMN, True)
    assert shared(COLUMN[:1], True).item() == pytest.approx(expected[0].item(), abs=1e-6)
    for name, figure in whole.state_dict().items():
        assert shared.state_dict()[name].item() == pytest.approx(figure.item(), rel=1e-6), name


def test_of_a_shared_batch_of_one_row_what_was_seen_counts() -> None:
    norm = BatchNorm(1)
    norm.add_up = lambda sums: sums
    assert norm(torch.tensor([[2.0]]), True).item() == pytest.approx(2.0, rel=1e-4)
    assert norm(torch.zeros(0, 1), True).shape == (0, 1)
    assert norm.running_mean.item() == 0.0
