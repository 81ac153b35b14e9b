"""Every loss against the whole matrix of logits and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from dssm_assets.core.config.model import Loss, Model
from dssm_assets.core.models import losses
from dssm_assets.core.models.losses import (
    LOSSES,
    LossTerms,
    MaskedPairs,
    l2_loss,
    sigmoid_loss,
    softmax_loss,
)
from dssm_assets.testing import LossContract, random_batch


def _diagonal(count: int) -> MaskedPairs:
    return MaskedPairs(np.arange(count), np.arange(count))


def plain_terms(
    rows: int, columns: int, hard_rows: list[int], masked: MaskedPairs | None = None, kind: torch.dtype = torch.float64
) -> LossTerms:
    """Returns terms without corrections, all weights 1."""
    return LossTerms(
        positive_correction=torch.zeros(rows, dtype=kind),
        column_correction=torch.zeros(columns, dtype=kind),
        weight=torch.ones(rows, dtype=kind),
        masked=_diagonal(0) if masked is None else masked,
        hard_rows=np.array(hard_rows, np.int64),
        hard_correction=torch.zeros(len(hard_rows), dtype=kind),
    )


def counted_cells(terms: LossTerms) -> Tensor:
    """Returns which columns and hard negatives count for which row, bool [B, C + H]."""
    rows, columns = len(terms.weight), len(terms.column_correction)
    counted = torch.zeros(rows, columns + len(terms.hard_rows), dtype=torch.bool)
    counted[:, :columns] = True
    counted[terms.masked.rows, terms.masked.columns] = False
    counted[terms.hard_rows, columns + np.arange(len(terms.hard_rows))] = True
    return counted


def _whole(
    name: str, user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms, scale: Tensor, affine: Any
) -> Tensor:
    """Returns a loss by the whole matrix of logits [B, 1 + C + H], column 0 being the positive."""
    corrections = torch.cat([terms.column_correction, terms.hard_correction])
    x = torch.cat([(user * positive).sum(1)[:, None], user @ torch.cat([columns, hard]).T], dim=1)
    correction = torch.cat([terms.positive_correction[:, None], corrections.expand(len(user), -1)], dim=1)
    counted = torch.cat([torch.ones(len(user), 1, dtype=torch.bool), counted_cells(terms)], dim=1)
    label = torch.zeros_like(x)
    label[:, 0] = 1.0
    if name == "softmax":
        logits = (scale * x - correction).masked_fill(~counted, -torch.inf)
        by_row = cross_entropy(logits, torch.zeros(len(user), dtype=torch.int64), reduction="none")
    else:
        similarity = affine[0] * x + affine[1]
        cells = (
            (similarity - label) ** 2
            if name == "l2"
            else binary_cross_entropy_with_logits(scale * similarity - correction, label, reduction="none")
        )
        cells = torch.where(counted, cells, torch.zeros_like(cells))
        by_row = cells[:, 0] + cells[:, 1:].sum(1) / (counted.sum(1) - 1).clamp(min=1)
    return (by_row * terms.weight).sum() / terms.weight.sum() + 0.0 * (scale + affine[0] + affine[1])


@pytest.mark.parametrize("name", LOSSES)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    negatives=st.integers(0, 6),
    hard=st.integers(0, 5),
    chunk_rows=st.integers(1, 12),
    scale=st.sampled_from([0.3, 3.0, 40.0]),
)
def test_loss_and_gradients_equal_the_whole_matrix(
    name: str, seed: int, rows: int, negatives: int, hard: int, chunk_rows: int, scale: float
) -> None:
    batch = random_batch(seed, rows, negatives, hard)
    ours, theirs = ([*batch.leaves, *(torch.tensor(f).double().requires_grad_() for f in (scale, 0.7, -0.4))] for _ in "12")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_ROWS", chunk_rows)
        value = LOSSES[name](*ours[:4], batch.terms, ours[4], (ours[5], ours[6])) + 0.0 * (ours[4] + ours[5] + ours[6])
        (value * 3).backward()  # type: ignore[no-untyped-call]
    expected = _whole(name, *theirs[:4], batch.terms, theirs[4], (theirs[5], theirs[6]))
    (expected * 3).backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(expected.item(), rel=1e-11, abs=1e-11)
    for mine, other in zip(ours, theirs, strict=True):
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (mine, other)]
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-11)


def test_softmax_by_hand_with_weights_and_correction() -> None:
    # Row 0: positive logit 2/0.5 = 4, column 0 is itself (masked), column 1: 0/0.5 - log 2.
    # Row 1: positive logit 1/0.5 - log 2, column 0: 0/0.5 = 0.
    user = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    item = torch.eye(2, dtype=torch.float64)
    correction = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    terms = LossTerms(correction, correction, torch.tensor([1.0, 3.0], dtype=torch.float64), _diagonal(2))
    first = math.log(math.exp(4) + 0.5) - 4
    second = math.log(math.exp(2) / 2 + 1) - (2 - math.log(2))
    loss = softmax_loss(user, item, item, torch.zeros(0, 2).double(), terms, 2.0)
    assert loss.item() == pytest.approx((first + 3 * second) / 4)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_row_whose_columns_are_all_masked_has_no_softmax_loss_and_no_gradient(scale: float) -> None:
    user, item = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[3.0, 4.0]])
    terms = plain_terms(1, 1, [], _diagonal(1), torch.float32)
    loss = softmax_loss(user, item, item, torch.zeros(0, 2), terms, scale)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert user.grad is not None
    assert user.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("loss", "user", "positive", "column", "expected"),
    [
        (softmax_loss, 1000.0, 1.0, 2.0, 10_000.0),
        (softmax_loss, 1000.0, 1.0, 1.0, math.log(2)),
        (sigmoid_loss, 1000.0, -1.0, 2.0, 30_000.0),
    ],
)
def test_large_logits_do_not_overflow(
    loss: Callable[..., Tensor], user: float, positive: float, column: float, expected: float
) -> None:
    vectors = [torch.tensor([[value]]) for value in (user, positive, column)]
    terms = plain_terms(1, 1, [], kind=torch.float32)
    assert loss(*vectors, torch.zeros(0, 1), terms, 10.0).item() == pytest.approx(expected)


def test_far_corrections_do_not_overflow() -> None:
    terms = replace(plain_terms(1, 2, [], kind=torch.float32), column_correction=torch.tensor([-150.0, 150.0]))
    item = torch.tensor([[1.0]])
    assert softmax_loss(item, item, torch.zeros(2, 1), torch.zeros(0, 1), terms, 1.0).item() == pytest.approx(149.0)


def test_sigmoid_by_hand() -> None:
    # One row, scale 2, w 1, b 1: positive 2 * (3 + 1) - log 2; columns 2 * (0 + 1) - 0 and 2 * (-1 + 1) - 0, mean of the two.
    terms = replace(plain_terms(1, 2, []), positive_correction=torch.tensor([math.log(2)]).double())
    user, positive, columns = (torch.tensor(v)[:, None].double() for v in ([1.0], [3.0], [0.0, -1.0]))
    affine = torch.tensor(1.0).double(), torch.tensor(1.0).double()
    loss = sigmoid_loss(user, positive, columns, torch.zeros(0, 1).double(), terms, 2.0, affine)
    positive_loss = math.log(1 + math.exp(-(8 - math.log(2))))
    assert loss.item() == pytest.approx(positive_loss + (math.log(1 + math.exp(2)) + math.log(2)) / 2)


def test_l2_by_hand_ignores_scale_and_correction() -> None:
    # Row 0 (weight 3): (1 - 0.5)^2 + mean of 0.2^2 (its other column is masked) and the hard 0.4^2.
    # Row 1 (weight 1): (1 - 2)^2 + mean of 0.4^2 and 0.8^2, twice its user.
    terms = replace(
        plain_terms(2, 2, [0], _diagonal(1)),
        weight=torch.tensor([3.0, 1.0]).double(),
        positive_correction=torch.tensor([5.0, 6.0]).double(),
        column_correction=torch.tensor([7.0, 8.0]).double(),
    )
    vectors = [torch.tensor(v)[:, None].double() for v in ([1.0, 2.0], [0.5, 1.0], [0.4, 0.2], [0.4])]
    first, second = 0.25 + (0.04 + 0.16) / 2, 1.0 + (0.64 + 0.16) / 2
    assert l2_loss(*vectors, terms, 99.0).item() == pytest.approx((3 * first + second) / 4)


class TestLosses(LossContract):
    names = tuple(LOSSES)


def test_terms_move_their_tensors_to_a_device_and_have_no_hard_negatives_by_default() -> None:
    terms = plain_terms(2, 3, [1])
    moved = terms.to(torch.device("meta"))
    for field in fields(terms):
        before, after = getattr(terms, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            assert (after.device.type, after.shape) == ("meta", before.shape)
        else:
            assert after is before
    bare = LossTerms(terms.positive_correction, terms.column_correction, terms.weight, terms.masked)
    assert (len(bare.hard_rows), len(bare.hard_correction)) == (0, 0)


def test_every_built_in_name_has_a_loss() -> None:
    assert set(LOSSES) == set(Loss)
    assert [Model(loss=name).loss for name in LOSSES] == list(Loss)
