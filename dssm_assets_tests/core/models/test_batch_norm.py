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
