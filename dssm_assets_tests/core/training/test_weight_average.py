"""The lazy moving average equals the naive one of whole tables."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.optimisers import RowGradients
from dssm_assets.core.training.weight_average import WeightAverage
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))
DIM = 8


def _towers() -> TwoTower:
    return TwoTower(SPEC, torch.Generator().manual_seed(3))


def _weights(towers: TwoTower) -> dict[str, torch.Tensor]:
    return {name: tensor.double().clone() for name, tensor in towers.state_dict().items()}


def _update(rows: list[int]) -> list[RowGradients]:
    return [RowGradients(DIM, torch.tensor(rows, dtype=torch.int64), torch.zeros(len(rows), DIM))]


def _random_step(towers: TwoTower, average: WeightAverage, rows: list[int], random: torch.Generator) -> None:
    """Changes these rows and all dense weights at random, as a step does."""
    update = _update(rows)
    average.before_update(update)
    towers.tables.table(DIM)[rows] += torch.randn(len(rows), DIM, generator=random)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random))
    average.after_update(update)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.sets(st.integers(1, 12)), min_size=1, max_size=15),
    decay=st.sampled_from([0.05, 0.5, 0.999]),
    evaluated_at=st.sets(st.integers(0, 14)),
)
def test_lazy_average_equals_the_naive_one(steps: list[set[int]], decay: float, evaluated_at: set[int]) -> None:
    towers, random = _towers(), torch.Generator().manual_seed(5)
    average = WeightAverage(towers, decay)
    naive = _weights(towers)
    for done, rows in enumerate(steps):
        _random_step(towers, average, sorted(rows), random)
        warm = min(decay, (1 + done) / (10 + done))
        naive = {name: warm * naive[name] + (1 - warm) * tensor for name, tensor in _weights(towers).items()}
        if done in evaluated_at:
            live = _weights(towers)
            with average.evaluation_weights():
                for name, tensor in _weights(towers).items():
                    torch.testing.assert_close(tensor, naive[name], rtol=1e-4, atol=1e-5)
            assert all(torch.equal(tensor, live[name]) for name, tensor in _weights(towers).items())
    average.finish()
    for name, tensor in _weights(towers).items():
        torch.testing.assert_close(tensor, naive[name], rtol=1e-4, atol=1e-5)
