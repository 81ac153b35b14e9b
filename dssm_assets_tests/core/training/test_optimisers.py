"""Row-wise Adagrad and Adam and the dense optimiser against references, and the schedule by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.bags import mean_bags, weighted_bags
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import EmbeddingOptimiser, StepPlan
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.training.optimisers import (
    DenseOptimiser,
    RowGradients,
    RowwiseAdagrad,
    RowwiseAdam,
    gradients_of,
    learning_rate_frac,
    row_gradients,
    row_optimiser,
)


def _feature(name: str, side: TowerSide, is_multi: bool = False) -> TowerFeature:
    return TowerFeature(name=name, side=side, embedding_name="item", embedding_dim=3, num_embeddings=6, is_multi=is_multi)


SINGLE, MULTI = _feature("a", TowerSide.ITEM), _feature("m", TowerSide.ITEM, is_multi=True)
SPEC = tower_spec([SINGLE, MULTI, _feature("h", TowerSide.SEQUENCE)], Model())
ROW = st.lists(st.integers(0, 5), min_size=0, max_size=5)


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.lists(st.tuples(st.integers(0, 5), ROW), min_size=1, max_size=6), min_size=1, max_size=3))
def test_rowwise_adagrad_equals_a_dense_reference(steps: list[list[tuple[int, list[int]]]]) -> None:
    tables = EmbeddingTables(SPEC, torch.Generator().manual_seed(0))
    groups = tables.groups([SINGLE], [MULTI])
    reference = tables.table(3).double().clone()
    squares = torch.zeros(len(reference), dtype=torch.float64)
    optimiser = RowwiseAdagrad(tables)
    for step in steps:
        values = np.array([v for _, row in step for v in row], np.int64)
        bags = mean_bags(values, offsets_of(np.array([len(row) for _, row in step])))
        inputs = TowerInput(np.array([[single] for single, _ in step]), (bags,))
        tape: list[Lookup] = []
        coefficients = torch.arange(1.0, 1 + len(step) * 6).view(len(step), 6)
        # Two look-ups of one table in a step: their gradients must meet in one update.
        for scale in (1.0, -0.3):
            (tables.lookup(groups, inputs, tape) * coefficients * scale).sum().backward()
        optimiser.update_rows(gradients_of(tables, tape), 0.1)
        gradient = _reference_gradient(step, coefficients * 0.7, len(reference))
        squares += gradient.square().mean(1)
        moved = squares > 0
        reference[moved] -= 0.1 * gradient[moved] / squares[moved].sqrt()[:, None]
    assert not tables.table(3)[0].any()
    torch.testing.assert_close(tables.table(3).double(), reference, rtol=1e-4, atol=1e-5)


def _reference_gradient(step: list[tuple[int, list[int]]], coefficients: torch.Tensor, rows: int) -> torch.Tensor:
    gradient = torch.zeros(rows, 3, dtype=torch.float64)
    for k, (single, multi) in enumerate(step):
        gradient[single] += coefficients[k, :3].double()
        present = [value for value in multi if value]
        for value in present:
            gradient[value] += coefficients[k, 3:].double() / len(present)
    gradient[0] = 0
    return gradient


def test_bag_weight_scales_the_gradient_of_its_row() -> None:
    # Gradient (4, 0, 0) of the bag: rows 1 and 2 by weights 3, -1 get (3, 0, 0) and (-1, 0, 0). Mean squares 3 and 1/3.
    tables = EmbeddingTables(SPEC, torch.Generator().manual_seed(0))
    before = tables.table(3).clone()
    bags = weighted_bags(np.array([1, 2]), np.array([0, 2]), np.array([3, -1], np.float32))
    tape: list[Lookup] = []
    found = tables.lookup(tables.groups([], [MULTI]), TowerInput(np.zeros((1, 0), np.int64), (bags,)), tape)
    (found * torch.tensor([4.0, 0.0, 0.0])).sum().backward()
    rows, gradient = row_gradients(tape)
    assert (rows.tolist(), gradient.tolist()) == ([1, 2], [[3, 0, 0], [-1, 0, 0]])
    RowwiseAdagrad(tables).update_rows(gradients_of(tables, tape), 0.1)
    moved = (tables.table(3) - before)[:, 0]
    assert moved.tolist() == pytest.approx([0, -0.3 / 3**0.5, 0.1 * 3**0.5, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("restored_at", [None, 2])
def test_dense_weights_move_as_by_adamw_of_torch_and_continue_from_their_state(restored_at: int | None) -> None:
    gradients = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(2))
    layer = torch.nn.Linear(3, 2)
    reference = copy.deepcopy(layer)
    theirs = torch.optim.AdamW([reference.weight], weight_decay=0.5)
    ours = DenseOptimiser(layer, 0.5)
    for step, gradient in enumerate(gradients):
        if step == restored_at:
            state, ours = {name: tensor.clone() for name, tensor in ours.state().items()}, DenseOptimiser(layer, 0.5)
            for name, tensor in ours.state().items():
                tensor.copy_(state[name])
        layer.weight.grad, reference.weight.grad = gradient.clone(), gradient.clone()
        theirs.param_groups[0]["lr"] = 0.1 / (step + 1)
        theirs.step()
        ours.update(0.1 / (step + 1))
    assert torch.equal(layer.weight, reference.weight)
    assert torch.equal(layer.bias, reference.bias)  # without a gradient it neither moves nor decays


def test_learning_rate_schedule_by_hand() -> None:
    # 10 steps, 2 of warm-up: 1/3, 2/3, then from 1 down to 0.3 over steps 2 .. 9.
    rates = [learning_rate_frac(step, StepPlan(10, 8), 0.3) for step in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert learning_rate_frac(0, StepPlan(1, 1), 0.5) == 1.0


ROWS, DIM = 6, 3


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
