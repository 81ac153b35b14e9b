"""Towers of many shapes and rows for them, shared by the tests of what a bundle holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.service.bundle.tower_layout import OUTPUT
from dssm_assets_tests.core.models.features import tower_feature

ROWS, ITEMS = 23, 9
LIST, WEIGHTS = pa.list_(pa.int32()), pa.list_(pa.float32())


FEATURES = (
    tower_feature("city", TowerSide.USER, dim=4, rows=4),
    tower_feature("age", TowerSide.USER, dim=8, rows=5),
    tower_feature("interests", TowerSide.USER, dim=8, rows=6, is_multi=True),
    tower_feature("hour", TowerSide.CONTEXT, dim=4, rows=25),
    tower_feature("pages", TowerSide.CONTEXT, dim=4, rows=7, is_multi=True, is_weighted=True),
    tower_feature("item", dim=8, rows=ITEMS + 2),
    tower_feature("tags", dim=4, rows=6, is_multi=True, is_weighted=True),
    tower_feature("h__item", TowerSide.SEQUENCE, "item", dim=8, rows=ITEMS + 2),
    tower_feature("h__tag", TowerSide.SEQUENCE, dim=4, rows=3),
)


def spec(**changes: Any) -> TowerSpec:
    """Returns a specification with some of the model's keys changed."""
    model = {"output_dim": 6, "hidden_units": [10], "history_length": 4, "num_sample": 4, **changes}
    return tower_spec(FEATURES, Model(**model))


def towers(of: TowerSpec, seed: int = 3) -> TwoTower:
    """Returns towers whose every parameter and row is drawn, norms, what they have seen and biases included."""
    two_tower = TwoTower(of, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for norm in (*two_tower.user_tower.norms, *two_tower.item_tower.norms):
            for name, values in norm.state_dict().items():
                low = -0.5 if name in ("bias", "running_mean") else 0.5
                values.uniform_(low, low + 1.0, generator=generator)
        for pooling in two_tower.attention:
            for weights in pooling.parameters():
                weights.mul_(20.0)  # the rows of the tables are short: without it every past item would weigh the same
        for weights in two_tower.encoders.parameters():
            weights.add_(torch.empty_like(weights).uniform_(-0.3, 0.3, generator=generator))
    return two_tower


def _lists(rng: np.random.Generator, count: int, most: int, high: int) -> tuple[pa.Array, pa.Array]:
    values = [rng.integers(0, high, rng.integers(0, most + 1)).tolist() for _ in range(count)]
    weights = [np.round(rng.uniform(-2, 2, len(row)), 2).astype(np.float32).tolist() for row in values]
    return pa.array(values, LIST), pa.array(weights, WEIGHTS)


def user_rows(of: TowerSpec, seed: int = 0) -> TowerInput:
    """Returns users with missing values, empty lists and histories of 0 to 6 events."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for own in of.features_of(TowerSide.USER, TowerSide.CONTEXT):
        if own.is_multi:
            columns[own.name], weights = _lists(rng, ROWS, 5, own.num_embeddings)
            columns |= {f"{own.name}__weights": weights} if own.is_weighted else {}
        else:
            columns[own.name] = pa.array(rng.integers(0, own.num_embeddings, ROWS).astype(np.int32))
    lengths = rng.integers(0, 7, ROWS)
    lengths[:2] = 0, 6
    ends = np.cumsum(lengths)
    events = {"event_time_ms": pa.array(np.arange(ends[-1], dtype=np.int64) * 40_000_000)}
    for own in of.sequences:
        events[own.name] = pa.array(rng.integers(0, own.num_embeddings, ends[-1]).astype(np.int32))
    read = SideReader(pa.table(columns), "users", of.features_of(TowerSide.USER, TowerSide.CONTEXT)).read(np.arange(ROWS))
    history = HistoryReader(pa.table(events), of).read(ends - lengths, ends)
    return read.with_history(history)


def item_rows(of: TowerSpec, seed: int = 0) -> TowerInput:
    rng = np.random.default_rng(seed)
    tags, weights = _lists(rng, ITEMS, 3, 6)
    table = pa.table({"item": pa.array(np.arange(2, ITEMS + 2, dtype=np.int32)), "tags": tags, "tags__weights": weights})
    return SideReader(table, "items", of.features_of(TowerSide.ITEM)).read(np.arange(ITEMS))


def run(model: bytes | str, feed: Any) -> Any:
    """Returns what onnxruntime makes of a model's inputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], feed)[0]
