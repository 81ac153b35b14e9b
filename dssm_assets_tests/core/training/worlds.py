"""Small generated worlds in the shape of train_samples, shared by the tests of training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.model_format import mapped_model, model_chunks

ITEMS, USERS, EVENTS = 12, 10, 8
"""Items 0-5 belong to even users, items 6-11 to odd users; every user interacts with items of its half alone."""
LIST = pa.list_(pa.int32())
SMALL_MODEL: dict[str, Any] = {"output_dim": 8, "hidden_units": [16], "num_sample": 8, "history_length": 5}
SMALL_TRAINING: dict[str, Any] = {"epochs": 2, "batch_size": 32, "num_threads": 1}
AS_OF_MS = 10**10


def _feature(name: str, side: TowerSide, table: str, rows: int, is_multi: bool = False) -> TowerFeature:
    dim = 4 if table in ("hour", "pages") else 8
    return TowerFeature(name=name, side=side, embedding_name=table, embedding_dim=dim, num_embeddings=rows, is_multi=is_multi)


FEATURES = (
    _feature("user_kind", TowerSide.USER, "user_kind", 4),
    _feature("interests", TowerSide.USER, "interests", 6, is_multi=True),
    _feature("hour", TowerSide.CONTEXT, "hour", 25),
    _feature("pages", TowerSide.CONTEXT, "pages", 5, is_multi=True),
    _feature("item", TowerSide.ITEM, "item", ITEMS + 2),
    _feature("tags", TowerSide.ITEM, "tags", 6, is_multi=True),
    _feature("h__item", TowerSide.SEQUENCE, "item", ITEMS + 2),
)


@dataclass(frozen=True)
class World:
    """The tables of train_samples. Samples also hold the features that their rows point to, for comparison."""

    samples: pa.Table
    user_rows: pa.Table
    item_rows: pa.Table
    history: pa.Table
    users: pa.Table
    items: pa.Table

    def data(self, spec: TowerSpec) -> TrainData:
        return TrainData(spec, **{field.name: getattr(self, field.name) for field in fields(self)})


def world(seed: int = 0, events: int = EVENTS) -> World:
    """Returns two groups of users, each user with this many independent, equally likely items of its group's half."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS, dtype=np.int32), events)
    item = np.concatenate([rng.integers(0, ITEMS // 2, events) + (u % 2) * (ITEMS // 2) for u in range(USERS)]).astype(np.int32)
    count = len(user)
    time = np.tile(np.arange(events, dtype=np.int64), USERS) * 86_400_000 // 4
    samples = {
        "item_index": item,
        "user_index": user,
        "history_end": np.arange(count, dtype=np.int64),
        "weight": rng.uniform(0.5, 1.5, count).astype(np.float32),
        "event_time_ms": time,
        "day": (time // 86_400_000).astype(np.int32),
        # Feature rows are in another order than users and items, after the row of unknown ones.
        "user_row": (USERS - user).astype(np.int32),
        "item_row": (1 + item * 5 % ITEMS).astype(np.int32),
        "user_kind": (user % 2 + 1).astype(np.int32),
        "hour": rng.integers(0, 25, count).astype(np.int32),
        "item": item + np.int32(2),
    }
    lists = {
        "interests": pa.array([[1 + u % 5, 2] for u in user.tolist()], LIST),
        "pages": pa.array([[1 + k % 4] * (k % 3) for k in range(count)], LIST),
        "tags": pa.array([[1 + i % 5] for i in item.tolist()], LIST),
    }
    history = {"item_index": item, "event_time_ms": time, "h__item": item + np.int32(2)}
    starts = np.arange(USERS, dtype=np.int64) * events
    items = {
        "weight": (np.bincount(item, minlength=ITEMS) + 1.0) ** 0.75,
        "item": np.arange(2, ITEMS + 2, dtype=np.int32),
        "tags": pa.array([[1 + i % 5] for i in range(ITEMS)], LIST),
    }
    wide = pa.table({**samples, **lists})
    return World(
        wide,
        _rows_pointed_to(wide, "user_row", USERS, {"user_kind": 0, "interests": []}),
        _rows_pointed_to(wide, "item_row", ITEMS, {"item": 0, "tags": []}),
        pa.table(history),
        pa.table({"history_start": starts, "history_end": starts + events}),
        pa.table(items),
    )


def _rows_pointed_to(samples: pa.Table, key: str, count: int, unknown: dict[str, Any]) -> pa.Table:
    """Returns the features of the samples that point to each row; features of rows without samples are missing."""
    found = {row[key]: {name: row[name] for name in unknown} for row in samples.select([key, *unknown]).to_pylist()}
    schema = pa.schema([samples.schema.field(name) for name in unknown])
    return pa.Table.from_pylist([found.get(row, unknown) for row in range(1 + count)], schema=schema)


class StepClock:
    """A clock that moves one second per reading."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


def fitted(
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    *,
    seed: int = 1,
    events: int = EVENTS,
    tables: World | None = None,
    context: FitContext | None = None,
) -> FitResult:
    """Returns towers fitted to tables, those of `world()` by default, with these fields changed from the small configuration."""
    changed_model = Model.model_validate({**SMALL_MODEL, **(model or {})})
    changed_training = Training.model_validate({**SMALL_TRAINING, **(training or {})})
    data = (tables or world(events=events)).data(tower_spec(FEATURES, changed_model))
    return fit(data, model=changed_model, training=changed_training, seed=seed, context=context)


def infer_item_vectors(two_tower: TwoTower, items: pa.Table, batch_size: int) -> FloatArray:
    """Returns the item tower's vectors [I, D] of one table, float32; see `ItemInference`."""
    return ItemInference(two_tower, batch_size).vectors(items)


def infer_user_vectors(
    two_tower: TwoTower,
    users: pa.Table,
    *,
    history_start: IntArray,
    history_end: IntArray,
    history: pa.Table,
    as_of_ms: int,
    batch_size: int,
) -> FloatArray:
    """Returns the user tower's vectors of one table, float32; see `UserInference`."""
    inference = UserInference(two_tower, history, as_of_ms=as_of_ms, batch_size=batch_size)
    return inference.vectors(users, history_start, history_end)


def model_bytes(towers: TwoTower) -> bytes:
    return b"".join(model_chunks(towers))


def model_from_bytes(data: bytes, spec: TowerSpec) -> TwoTower:
    return mapped_model(np.frombuffer(bytearray(data), np.uint8), spec)
