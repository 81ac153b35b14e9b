"""The recipes of docs/architecture.md, followed from outside the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.losses.loss_terms import Affine, LossTerms
from dssm_assets.core.models.losses.registry import LOSSES
from dssm_assets_tests.core.training.worlds import fitted


def bpr_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the mean of -log sigmoid(positive - negative), Bayesian personalised ranking (Rendle et al. 2009)."""
    margins = ((user * positive).sum(1)[:, None] - user @ columns.T) * scale  # [B, C]
    counts = torch.ones_like(margins)
    counts[terms.masked.rows, terms.masked.columns] = 0.0
    by_row = (softplus(-margins) * counts).sum(1) / counts.sum(1).clamp(min=1.0)
    return (by_row * terms.weight).sum() / terms.weight.sum()


def test_a_loss_from_outside_the_package_trains_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a registered loss: softmax, sigmoid, l2"):
        Model(loss="bpr")
    monkeypatch.setitem(LOSSES, "bpr", bpr_loss)  # LOSSES["bpr"] = bpr_loss, undone after the test
    losses = fitted({"loss": "bpr"}, {"epochs": 10}).loss_by_step
    # A user's negatives come from both halves of the items; those of its own half it cannot tell from its positives.
    assert losses[-3:].mean() < 0.65 * losses[:3].mean()
