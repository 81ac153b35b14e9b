"""Softmax of each row's positive against shared negatives, without ever holding the whole matrix of logits.

Belongs here: the loss as a function of embeddings. Does not belong here: who the negatives are, with what probability
they were drawn (`log_q`), and which do not count (`masks`).

For row i with positive p_i and negative columns j (in-batch items and sampled items alike):

    logit(i, j) = sim(u_i, v_j) / temperature - correction_j
    loss = sum_i w_i * (log(exp logit(i, p_i) + sum over unmasked j of exp logit(i, j)) - logit(i, p_i)) / sum_i w_i

With in-batch columns this is the cross entropy over logits [B, B + N] whose diagonal is the positive; the diagonal
is masked among the columns because the positive enters by itself.

Letters: B rows, C columns, D vector width, R rows held at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.models.losses.masks import MaskedPairs


@dataclass(frozen=True)
class SoftmaxTerms:
    """What the loss needs beside the vectors.

    Attributes:
        positive_correction: what is taken off the logit of each row's positive [B].
        column_correction: what is taken off the logits of each column [C].
        weight: weight of each row [B].
        masked: cells [B, C] that do not count.
        temperature: divides the similarity.
        logits_rows: R, rows of logits held at once; changes memory and speed, not the result.
    """

    positive_correction: Tensor
    column_correction: Tensor
    weight: Tensor
    masked: MaskedPairs
    temperature: float
    logits_rows: int


def sampled_softmax(user: Tensor, positive: Tensor, columns: Tensor, terms: SoftmaxTerms) -> Tensor:
    """Returns the weighted mean loss, a scalar.

    Args:
        user: vectors of the rows' users [B, D].
        positive: vectors of the rows' own items [B, D].
        columns: vectors of the negatives, shared by all rows [C, D].
        terms: corrections, weights and masks.
    """
    loss: Tensor = _ChunkedSoftmax.apply(user, positive, columns, terms)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Takes the gradient while the logits of a chunk exist, so that backward has nothing to recompute."""

    @staticmethod
    def forward(ctx: Any, user: Tensor, positive: Tensor, columns: Tensor, terms: SoftmaxTerms) -> Tensor:
        scale = 1.0 / terms.temperature
        share = terms.weight / terms.weight.sum()  # [B]
        grad_user, grad_columns = torch.empty_like(user), torch.zeros_like(columns)
        positive_logit = (user * positive).sum(1) * scale - terms.positive_correction  # [B]
        grad_positive_logit = torch.empty_like(positive_logit)
        loss = user.new_zeros(())
        held = user.new_empty(min(terms.logits_rows, len(user)), len(columns))  # [R, C]
        for begin in range(0, len(user), terms.logits_rows):
            rows = slice(begin, min(begin + terms.logits_rows, len(user)))
            own = positive_logit[rows]
            logits = _masked_logits(held, user[rows], columns, terms, begin)
            top = torch.maximum(logits.amax(1), own) if len(columns) else own
            logits.sub_(top[:, None]).exp_()
            own_exp = (own - top).exp()
            total = logits.sum(1) + own_exp
            loss += (share[rows] * (top + total.log() - own)).sum()
            grad_positive_logit[rows] = share[rows] * (own_exp / total - 1.0)
            logits.mul_((share[rows] * scale / total)[:, None])
            torch.mm(logits, columns, out=grad_user[rows])
            grad_columns.addmm_(logits.T, user[rows])
        grad_positive_logit *= scale
        grad_user += grad_positive_logit[:, None] * positive
        ctx.save_for_backward(grad_user, grad_positive_logit[:, None] * user, grad_columns)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return *(gradient * grad_outputs[0] for gradient in ctx.saved_tensors), None


def _masked_logits(held: Tensor, user: Tensor, columns: Tensor, terms: SoftmaxTerms, begin: int) -> Tensor:
    """Fills `held` with the logits of the rows from `begin` on and returns the part that is used [R, C]."""
    logits = held[: len(user)]
    torch.mm(user, columns.T, out=logits)
    logits.mul_(1.0 / terms.temperature).sub_(terms.column_correction)
    first, last = np.searchsorted(terms.masked.rows, [begin, begin + len(user)])
    rows = torch.from_numpy(terms.masked.rows[first:last] - begin)
    logits[rows, torch.from_numpy(terms.masked.columns[first:last])] = -torch.inf
    return logits
