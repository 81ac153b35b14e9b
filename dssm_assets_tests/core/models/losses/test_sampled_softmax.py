"""The chunked loss against the whole matrix, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dssm_assets.core.models.losses.masks import MaskedPairs, diagonal_pairs, matching_pairs, union_of
from dssm_assets.core.models.losses.sampled_softmax import SoftmaxTerms, sampled_softmax


def _no_pairs() -> MaskedPairs:
    return MaskedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64))


def _random(seed: int, rows: int, negatives: int, logits_rows: int) -> tuple[Tensor, Tensor, Tensor, SoftmaxTerms]:
    rng = np.random.default_rng(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    user, item, negative = tensor(rows, 3), tensor(rows, 3), tensor(negatives, 3)
    items = rng.integers(0, 4, rows)
    columns = np.concatenate([items, rng.integers(0, 4, negatives)])
    correction = tensor(rows + negatives)
    masked = union_of(diagonal_pairs(rows), matching_pairs(np.arange(rows), items, columns))
    weight = torch.from_numpy(rng.uniform(0.5, 2, rows))
    terms = SoftmaxTerms(correction[:rows], correction, weight, masked, 0.3, logits_rows)
    return user, item, negative, terms


def _naive(user: Tensor, item: Tensor, negative: Tensor, terms: SoftmaxTerms) -> Tensor:
    """Cross entropy over [B, B + N] with the positive on the diagonal."""
    logits = user @ torch.cat([item, negative]).T / terms.temperature - terms.column_correction
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[terms.masked.rows, terms.masked.columns] = True
    mask.fill_diagonal_(False)
    losses = torch.nn.functional.cross_entropy(logits.masked_fill(mask, -torch.inf), torch.arange(len(user)), reduction="none")
    return (losses * terms.weight).sum() / terms.weight.sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), negatives=st.integers(0, 6), logits_rows=st.integers(1, 12))
def test_loss_and_gradients_equal_the_whole_matrix(seed: int, rows: int, negatives: int, logits_rows: int) -> None:
    user, item, negative, terms = _random(seed, rows, negatives, logits_rows)
    ours = [tensor.clone().requires_grad_() for tensor in (user, item, negative)]
    naive = [tensor.clone().requires_grad_() for tensor in (user, item, negative)]
    loss = sampled_softmax(ours[0], ours[1], torch.cat([ours[1], ours[2]]), terms)
    expected = _naive(*naive, terms)
    (loss * 3).backward()
    (expected * 3).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    for mine, theirs in zip(ours, naive, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_gradcheck_with_columns_that_are_not_the_positives() -> None:
    user, item, negative, terms = _random(5, 4, 5, 2)
    terms = replace(terms, column_correction=terms.column_correction[4:], masked=_no_pairs())
    inputs = tuple(tensor.requires_grad_() for tensor in (user, item, negative))
    assert torch.autograd.gradcheck(lambda u, v, n: sampled_softmax(u, v, n, terms), inputs)


def test_by_hand_with_weights_and_correction() -> None:
    # Row 0: positive logit 2/0.5 = 4, column 0 is itself (masked), column 1: 0/0.5 - log 2.
    # Row 1: positive logit 1/0.5 - log 2, column 0: 0/0.5 = 0.
    user = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    item = torch.eye(2, dtype=torch.float64)
    correction = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    terms = SoftmaxTerms(correction, correction, weight, diagonal_pairs(2), 0.5, 1)
    first = math.log(math.exp(4) + 0.5) - 4
    second = math.log(math.exp(2) / 2 + 1) - (2 - math.log(2))
    assert sampled_softmax(user, item, item, terms).item() == pytest.approx((first + 3 * second) / 4)


def test_row_whose_columns_are_all_masked_has_no_loss_and_no_gradient() -> None:
    user = torch.tensor([[1.0, 2.0]], requires_grad=True)
    item = torch.tensor([[3.0, 4.0]])
    terms = SoftmaxTerms(torch.zeros(1), torch.zeros(1), torch.ones(1), diagonal_pairs(1), 0.1, 8)
    loss = sampled_softmax(user, item, item, terms)
    loss.backward()
    assert loss.item() == 0.0
    assert user.grad is not None
    assert user.grad.tolist() == [[0.0, 0.0]]


def test_large_logits_do_not_overflow() -> None:
    user, item = torch.tensor([[1000.0]]), torch.tensor([[1.0]])
    terms = SoftmaxTerms(torch.zeros(1), torch.zeros(1), torch.ones(1), _no_pairs(), 0.1, 8)
    assert sampled_softmax(user, item, torch.tensor([[2.0]]), terms).item() == pytest.approx(10_000.0)
