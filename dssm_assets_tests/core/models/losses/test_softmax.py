"""The chunked loss against the whole matrix, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.models.losses.loss_terms import LossTerms, MaskedPairs, diagonal_pairs
from dssm_assets.core.models.losses.softmax import cross_entropy, softmax_loss
from dssm_assets_tests.core.models.losses.loss_batches import (
    as_float32,
    assert_same_gradients,
    plain_terms,
    random_batch,
)

_SIZES = {
    "seed": st.integers(0, 10_000),
    "rows": st.integers(1, 9),
    "negatives": st.integers(0, 6),
    "hard": st.integers(0, 5),
    "logits_chunk_rows": st.integers(1, 12),
}


@settings(max_examples=60, deadline=None)
@given(**_SIZES, scale=st.sampled_from([0.3, 3.0, 40.0]))
def test_loss_and_gradients_equal_the_whole_matrix(
    seed: int, rows: int, negatives: int, hard: int, logits_chunk_rows: int, scale: float
) -> None:
    batch = random_batch(seed, rows, negatives, hard, logits_chunk_rows)
    assert_same_gradients(batch, softmax_loss, cross_entropy, [scale])


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_gradients_are_those_of_finite_differences(scale: float) -> None:
    batch = random_batch(5, 4, 5, 3, 2)
    factor = torch.tensor(scale).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *v: softmax_loss(*v[:4], batch.terms, v[4]), (*batch.leaves, factor))


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_chunk_size_does_not_change_the_loss(scale: float) -> None:
    batch = random_batch(3, 9, 4, 3, 1)
    values = [
        softmax_loss(*batch.vectors, replace(batch.terms, logits_chunk_rows=rows), scale).item() for rows in (1, 4, 9, 100)
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-14)


def test_by_hand_with_weights_and_correction() -> None:
    # Row 0: positive logit 2/0.5 = 4, column 0 is itself (masked), column 1: 0/0.5 - log 2.
    # Row 1: positive logit 1/0.5 - log 2, column 0: 0/0.5 = 0.
    user = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    item = torch.eye(2, dtype=torch.float64)
    correction = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    terms = LossTerms(correction, correction, weight, diagonal_pairs(2), 1)
    first = math.log(math.exp(4) + 0.5) - 4
    second = math.log(math.exp(2) / 2 + 1) - (2 - math.log(2))
    loss = softmax_loss(user, item, item, torch.zeros(0, 2).double(), terms, 2.0)
    assert loss.item() == pytest.approx((first + 3 * second) / 4)


def test_hard_negatives_by_hand() -> None:
    # Row 1 alone has two: logits 1 * 3 - 0 and 1 * 2 - log 2; its positive has 1 * 1. Row 0 is compared only with itself.
    terms = replace(plain_terms(2, 0, [1, 1]), hard_correction=torch.tensor([0.0, math.log(2)]).double())
    user, positive, hard = (torch.tensor(v)[:, None].double() for v in ([5.0, 1.0], [1.0, 1.0], [3.0, 2.0]))
    loss = softmax_loss(user, positive, torch.zeros(0, 1).double(), hard, terms, 1.0)
    assert loss.item() == pytest.approx((math.log(math.e + math.exp(3) + math.exp(2) / 2) - 1) / 2)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_row_whose_columns_are_all_masked_has_no_loss_and_no_gradient(scale: float) -> None:
    user = torch.tensor([[1.0, 2.0]], requires_grad=True)
    item = torch.tensor([[3.0, 4.0]])
    terms = LossTerms(torch.zeros(1), torch.zeros(1), torch.ones(1), diagonal_pairs(1), 8)
    loss = softmax_loss(user, item, item, torch.zeros(0, 2), terms, scale)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert user.grad is not None
    assert user.grad.tolist() == [[0.0, 0.0]]


def test_large_logits_do_not_overflow() -> None:
    user, item, terms = torch.tensor([[1000.0]]), torch.tensor([[1.0]]), plain_terms(1, 1, [0])
    assert softmax_loss(user, item, torch.tensor([[2.0]]), item, terms, 10.0).item() == pytest.approx(10_000.0)
    assert softmax_loss(user, item, item, torch.tensor([[2.0]]), terms, 10.0).item() == pytest.approx(10_000.0)


def test_far_corrections_do_not_overflow() -> None:
    terms = replace(plain_terms(1, 2, []), column_correction=torch.tensor([-150.0, 150.0]))
    item = torch.tensor([[1.0]])
    loss = softmax_loss(item, item, torch.zeros(2, 1), torch.zeros(0, 1), terms, 1.0)
    assert loss.item() == pytest.approx(149.0)


def test_a_cell_masked_twice_is_masked_once() -> None:
    batch = random_batch(1, 3, 2, 0, 8)
    masked = batch.terms.masked
    twice = MaskedPairs(np.repeat(masked.rows, 2), np.repeat(masked.columns, 2))
    again = softmax_loss(*batch.vectors, replace(batch.terms, masked=twice), 1.0)
    assert again.item() == softmax_loss(*batch.vectors, batch.terms, 1.0).item()


def test_half_vectors_get_half_gradients_inside_autocast() -> None:
    batch = as_float32(random_batch(2, 5, 3, 2, 2))
    leaves = [tensor.bfloat16().requires_grad_() for tensor in batch.vectors]
    wide = [tensor.detach().float() for tensor in leaves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = softmax_loss(*leaves, batch.terms, 2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == softmax_loss(*wide, batch.terms, 2.0).item()
    assert [leaf.grad.dtype for leaf in leaves if leaf.grad is not None] == [torch.bfloat16] * 4
