"""Small random batches for the tests of several losses, and the matrix of which columns count for which row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dssm_assets.core.models.losses.loss_terms import LossTerms, MaskedPairs, diagonal_pairs, matching_pairs, merge_pairs

Vectors = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LossBatch:
    """Vectors of users [B, 3], their items [B, 3], columns [C, 3] and hard negatives [H, 3], and the terms."""

    vectors: Vectors
    terms: LossTerms

    @property
    def leaves(self) -> list[Tensor]:
        """Copies of the vectors that can receive gradients."""
        return [tensor.clone().requires_grad_() for tensor in self.vectors]


def no_pairs() -> MaskedPairs:
    """Returns no masked cells."""
    return MaskedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64))


def random_batch(seed: int, rows: int, negatives: int, hard: int, logits_chunk_rows: int) -> LossBatch:
    """Returns in-batch columns and `negatives` more, with collisions, weights, corrections and hard negatives."""
    rng = np.random.default_rng(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    user, item = tensor(rows, 3), tensor(rows, 3)
    items = rng.integers(0, 4, rows)
    columns = np.concatenate([items, rng.integers(0, 4, negatives)])
    terms = LossTerms(
        positive_correction=tensor(rows),
        column_correction=tensor(rows + negatives),
        weight=torch.from_numpy(rng.uniform(0.5, 2, rows)),
        masked=merge_pairs(diagonal_pairs(rows), matching_pairs(np.arange(rows), items, columns)),
        logits_chunk_rows=logits_chunk_rows,
        hard_rows=rng.integers(0, rows, hard),
        hard_correction=tensor(hard),
    )
    return LossBatch((user, item, torch.cat([item, tensor(negatives, 3)]), tensor(hard, 3)), terms)


def plain_terms(rows: int, columns: int, hard_rows: list[int], *, masked: MaskedPairs | None = None) -> LossTerms:
    """Returns terms without corrections, all weights 1, in float64."""
    return LossTerms(
        positive_correction=torch.zeros(rows).double(),
        column_correction=torch.zeros(columns).double(),
        weight=torch.ones(rows).double(),
        masked=no_pairs() if masked is None else masked,
        logits_chunk_rows=2,
        hard_rows=np.array(hard_rows, np.int64),
        hard_correction=torch.zeros(len(hard_rows)).double(),
    )


def assert_same_gradients(
    batch: LossBatch, loss: Callable[..., Tensor], reference: Callable[..., Tensor], factors: list[float]
) -> None:
    """Checks value and gradients of a loss of (user, positive, columns, hard, terms, *factors) against a reference."""
    ours, theirs = batch.leaves, batch.leaves
    our_factors, their_factors = ([torch.tensor(f).double().requires_grad_() for f in factors] for _ in range(2))
    value, expected = loss(*ours, batch.terms, *our_factors), reference(*theirs, batch.terms, *their_factors)
    (value * 3).backward()  # type: ignore[no-untyped-call]
    (expected * 3).backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(expected.item(), rel=1e-11, abs=1e-11)
    for mine, other in zip([*ours, *our_factors], [*theirs, *their_factors], strict=True):
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (mine, other)]
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-11)


def as_float32(batch: LossBatch) -> LossBatch:
    """Returns the batch in float32."""
    terms = batch.terms
    names = ("positive_correction", "column_correction", "weight", "hard_correction")
    terms = replace(terms, **{name: getattr(terms, name).float() for name in names})
    user, positive, columns, hard = (tensor.float() for tensor in batch.vectors)
    return LossBatch((user, positive, columns, hard), terms)
