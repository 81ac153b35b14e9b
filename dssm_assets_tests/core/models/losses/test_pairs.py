"""The losses of pairs (sigmoid, l2) against the whole matrix, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dssm_assets.core.models.losses.l2 import l2_loss
from dssm_assets.core.models.losses.loss_terms import LossTerms, counted_cells, diagonal_pairs
from dssm_assets.core.models.losses.sigmoid import sigmoid_loss
from dssm_assets_tests.core.models.losses.loss_batches import (
    assert_same_gradients,
    plain_terms,
    random_batch,
)

_BOTH = pytest.mark.parametrize("loss", [sigmoid_loss, l2_loss])


def _log2(value: float) -> Tensor:
    return torch.tensor([math.log(value)]).double()


def _whole(per_pair: Callable[[Tensor, Tensor], Tensor], logits: tuple[Tensor, Tensor], terms: LossTerms) -> Tensor:
    """Mean over rows of the positive's loss and the mean loss of the negatives, from logits [B] and [B, C + H]."""
    own, others = logits
    counted = counted_cells(terms)
    negatives = torch.where(counted, per_pair(others, torch.zeros_like(others)), torch.zeros_like(others)).sum(1)
    losses = per_pair(own, torch.ones_like(own)) + negatives / counted.sum(1).clamp(min=1)
    return (losses * terms.weight).sum() / terms.weight.sum()


def _similarities(user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor) -> tuple[Tensor, Tensor]:
    return (user * positive).sum(1), user @ torch.cat([columns, hard]).T


def _whole_sigmoid(
    user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms, scale: Tensor, w: Tensor, b: Tensor
) -> Tensor:
    own, others = _similarities(user, positive, columns, hard)
    corrections = torch.cat([terms.column_correction, terms.hard_correction])
    logits = scale * (w * own + b) - terms.positive_correction, scale * (w * others + b) - corrections

    def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="none")

    return _whole(cross_entropy, logits, terms)


def _whole_l2(
    user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms, scale: Tensor, w: Tensor, b: Tensor
) -> Tensor:
    own, others = _similarities(user, positive, columns, hard)
    return _whole(lambda s, label: (s - label) ** 2, (w * own + b, w * others + b), terms) + 0.0 * scale


_REFERENCES = pytest.mark.parametrize(("loss", "reference"), [(sigmoid_loss, _whole_sigmoid), (l2_loss, _whole_l2)])


def _with_affine(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda u, p, c, h, terms, scale, w, b: loss(u, p, c, h, terms, scale, (w, b)) + 0.0 * scale


@_REFERENCES
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    negatives=st.integers(0, 6),
    hard=st.integers(0, 5),
    logits_chunk_rows=st.integers(1, 12),
    scale=st.sampled_from([0.3, 30.0]),
)
def test_loss_and_gradients_equal_the_whole_matrix(
    loss: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    seed: int,
    rows: int,
    negatives: int,
    hard: int,
    logits_chunk_rows: int,
    scale: float,
) -> None:
    batch = random_batch(seed, rows, negatives, hard, logits_chunk_rows)
    assert_same_gradients(batch, _with_affine(loss), reference, [scale, 0.7, -0.4])


@_BOTH
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    batch = random_batch(5, 4, 5, 3, 2)
    factors = [torch.tensor(f).double().requires_grad_() for f in (0.8, 1.3, 0.2)]
    inputs = (*batch.leaves, *factors)
    assert torch.autograd.gradcheck(lambda *v: _with_affine(loss)(*v[:4], batch.terms, *v[4:]), inputs)


@_BOTH
def test_affine_of_one_and_zero_is_none(loss: Callable[..., Tensor]) -> None:
    batch = random_batch(6, 5, 3, 2, 3)
    plain = loss(*batch.vectors, batch.terms, 2.0)
    same = loss(*batch.vectors, batch.terms, 2.0, (torch.tensor(1.0).double(), torch.tensor(0.0).double()))
    assert plain.item() == pytest.approx(same.item(), rel=1e-14)


@_BOTH
def test_chunk_size_does_not_change_the_loss(loss: Callable[..., Tensor]) -> None:
    batch = random_batch(3, 9, 4, 3, 1)
    values = [loss(*batch.vectors, replace(batch.terms, logits_chunk_rows=rows), 2.0).item() for rows in (1, 4, 9, 100)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-14)


def test_sigmoid_by_hand() -> None:
    # One row, scale 2, w 1, b 1: positive 2 * (3 + 1) - log 2; columns 2 * (0 + 1) - 0 and 2 * (-1 + 1) - 0, mean of the two.
    terms = replace(plain_terms(1, 2, []), positive_correction=_log2(2))
    user, positive, columns = (torch.tensor(v)[:, None].double() for v in ([1.0], [3.0], [0.0, -1.0]))
    affine = torch.tensor(1.0).double(), torch.tensor(1.0).double()
    loss = sigmoid_loss(user, positive, columns, torch.zeros(0, 1).double(), terms, 2.0, affine)
    positive_loss = math.log(1 + math.exp(-(8 - math.log(2))))
    assert loss.item() == pytest.approx(positive_loss + (math.log(1 + math.exp(2)) + math.log(2)) / 2)


def test_l2_by_hand_ignores_scale_and_correction() -> None:
    # Row 0 (weight 3): (1 - 0.5)^2 + mean of 0.2^2 (its other column is masked) and the hard 0.4^2.
    # Row 1 (weight 1): (1 - 2)^2 + mean of 0.4^2 and 0.8^2, twice its user.
    terms = replace(
        plain_terms(2, 2, [0], masked=diagonal_pairs(1)),
        weight=torch.tensor([3.0, 1.0]).double(),
        positive_correction=torch.tensor([5.0, 6.0]).double(),
        column_correction=torch.tensor([7.0, 8.0]).double(),
    )
    vectors = [torch.tensor(v)[:, None].double() for v in ([1.0, 2.0], [0.5, 1.0], [0.4, 0.2], [0.4])]
    first, second = 0.25 + (0.04 + 0.16) / 2, 1.0 + (0.64 + 0.16) / 2
    assert l2_loss(*vectors, terms, 99.0).item() == pytest.approx((3 * first + second) / 4)


@_BOTH
def test_a_row_without_negatives_has_the_loss_of_its_positive(loss: Callable[..., Tensor]) -> None:
    item = torch.tensor([[1.0]]).double()
    terms = plain_terms(1, 1, [], masked=diagonal_pairs(1))
    value = loss(item, item * 0.5, item, torch.zeros(0, 1).double(), terms, 1.0).item()
    assert value == pytest.approx(math.log(1 + math.exp(-0.5)) if loss is sigmoid_loss else 0.25)


def test_negatives_weigh_as_much_as_the_positive_however_many() -> None:
    one = torch.tensor([[1.0]]).double()
    few, many = (l2_loss(one, one, one.repeat(n, 1), one[:0], plain_terms(1, n, []), 1.0).item() for n in (1, 7))
    assert few == pytest.approx(1.0)
    assert many == pytest.approx(1.0)


def test_large_logits_do_not_overflow() -> None:
    user, positive, column = torch.tensor([[1000.0]]), torch.tensor([[-1.0]]), torch.tensor([[2.0]])
    loss = sigmoid_loss(user, positive, column, column[:0], plain_terms(1, 1, []), 10.0)
    assert loss.item() == pytest.approx(30_000.0)
