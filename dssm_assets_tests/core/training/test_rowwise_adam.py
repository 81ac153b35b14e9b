"""Row-wise Adam against a dense reference in float64, and its first steps by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import EmbeddingOptimiser
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.training.optimisers import RowGradients, RowwiseAdagrad, RowwiseAdam, row_optimiser

ROWS, DIM = 7, 3
FEATURES = [
    TowerFeature(name=name, side=side, embedding_name="item", embedding_dim=DIM, num_embeddings=ROWS)
    for name, side in (("a", TowerSide.ITEM), ("h", TowerSide.SEQUENCE))
]
SPEC = tower_spec(FEATURES, Model())


def _tables() -> EmbeddingTables:
    return EmbeddingTables(SPEC, torch.Generator().manual_seed(0))


def _gradients(rows: list[int], gradient: torch.Tensor) -> list[RowGradients]:
    return [RowGradients(DIM, torch.tensor(rows, dtype=torch.int64), gradient)]


@given(steps=st.lists(st.sets(st.integers(1, ROWS - 1)), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_rowwise_adam_equals_adam_with_zero_gradients_on_rows_that_were_read(steps: list[set[int]], seed: int) -> None:
    tables, random = _tables(), torch.Generator().manual_seed(seed)
    optimiser = RowwiseAdam(tables)
    weight = tables.table(DIM).double().clone()
    mean, square = torch.zeros(ROWS, DIM, dtype=torch.float64), torch.zeros(ROWS, dtype=torch.float64)
    for done, read in enumerate(steps):
        rows = sorted(read)
        gradient = torch.randn(len(rows), DIM, generator=random)
        optimiser.update_rows(_gradients(rows, gradient) if rows else [], 0.1)
        whole = torch.zeros(ROWS, DIM, dtype=torch.float64)
        whole[rows] = gradient.double()
        mean = 0.9 * mean + 0.1 * whole
        square = 0.999 * square + 0.001 * whole.square().mean(1)
        step = done + 1
        change = 0.1 * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)[:, None]
        weight[rows] -= change[rows]
    torch.testing.assert_close(tables.table(DIM).double(), weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "optimiser_type"), [("adam", RowwiseAdam), ("adagrad", RowwiseAdagrad)])
def test_optimiser_resumes_from_its_state(kind: str, optimiser_type: type) -> None:
    random = torch.Generator().manual_seed(1)
    gradients = [([1, 3], torch.randn(2, DIM, generator=random)), ([3, 5], torch.randn(2, DIM, generator=random))]
    whole, parts = _tables(), _tables()
    optimiser = row_optimiser(whole, EmbeddingOptimiser(kind))
    assert isinstance(optimiser, optimiser_type)
    for rows, gradient in gradients:
        optimiser.update_rows(_gradients(rows, gradient), 0.1)
    first = row_optimiser(parts, EmbeddingOptimiser(kind))
    first.update_rows(_gradients(*gradients[0]), 0.1)
    second = row_optimiser(parts, EmbeddingOptimiser(kind))
    for name, tensor in second.state().items():
        tensor.copy_(first.state()[name])
    second.update_rows(_gradients(*gradients[1]), 0.1)
    assert torch.equal(whole.table(DIM), parts.table(DIM))
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in optimiser.state().items())
    assert not np.allclose(whole.table(DIM).numpy(), _tables().table(DIM).numpy())
