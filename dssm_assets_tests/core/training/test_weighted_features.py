"""Feature weights in training: weights of 1 equal no weights, those of any feature change the towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.loop import fit
from dssm_assets_tests.core.training.worlds import (
    FEATURES,
    SMALL_MODEL,
    SMALL_TRAINING,
    World,
    world,
)

MODEL, TRAINING = Model(**{**SMALL_MODEL, "context_dropout": 0.3}), Training(**SMALL_TRAINING)
MULTI = tuple(feature.name for feature in FEATURES if feature.is_multi)
PLAIN = tower_spec(FEATURES, MODEL)
WEIGHTED = tower_spec([f.model_copy(update={"is_weighted": f.is_multi}) for f in FEATURES], MODEL)
Weigh = Callable[[str, int], float]


def ones(_: str, __: int) -> float:
    return 1.0


def only(changed: str) -> Weigh:
    """Returns weights 1, 2, 3 ... of the values of one feature, and 1 of all others."""
    return lambda feature, place: 1.0 + place if feature == changed else 1.0


def _wide(table: pa.Table) -> pa.Table:
    """Returns the table with a second value in every list: the mean of one value is that value, whatever its weight."""
    for name in (name for name in MULTI if name in table.column_names):
        rows = [[*row, 3] if row else row for row in table.column(name).to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(rows, pa.list_(pa.int32())))
    return table


def _weighed(table: pa.Table, weigh: Weigh) -> pa.Table:
    for name in (name for name in MULTI if name in table.column_names):
        rows = [[weigh(name, place) for place in range(len(row))] for row in table.column(name).to_pylist()]
        table = table.append_column(feature_weights(name), pa.array(rows, pa.list_(pa.float32())))
    return table


def _world(weigh: Weigh | None) -> World:
    names = ("samples", "user_rows", "item_rows", "items")
    tables = world()
    tables = replace(tables, **{name: _wide(getattr(tables, name)) for name in names})
    if weigh is None:
        return tables
    return replace(tables, **{name: _weighed(getattr(tables, name), weigh) for name in names})


def _fitted(tables: World, spec: object = WEIGHTED) -> TwoTower:
    return fit(tables.data(spec), model=MODEL, training=TRAINING, seed=1).two_tower  # type: ignore[arg-type]


def _state(towers: TwoTower) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in towers.state_dict().items()}


@pytest.fixture(scope="module")
def plain() -> TwoTower:
    return _fitted(_world(None), PLAIN)


def test_weights_of_one_equal_no_weights(plain: TwoTower) -> None:
    assert _state(_fitted(_world(ones))) == _state(plain)


@pytest.mark.parametrize("feature", MULTI)
def test_weights_of_each_feature_change_the_towers(feature: str, plain: TwoTower) -> None:
    assert _state(_fitted(_world(only(feature)))) != _state(plain)
