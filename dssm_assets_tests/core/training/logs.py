"""Training data from a log of interactions, by the functions that build train_samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.config.model import History, Model
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.samples.history import history_from_tables
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.samples.train_samples import discretise_day
from dssm_assets.core.training.data import TrainData

DAY_MS = 86_400_000
Column = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """Events by time: users and items as numbers from 0, and timestamps in milliseconds."""

    users: Column
    items: Column
    times: Column

    @classmethod
    def from_table(cls, table: pa.Table) -> Log:
        """Returns the log of a table of user_id, item_id and event_time in seconds, sorted by time."""
        codes = [np.unique(np.asarray(table[name].to_pylist()), return_inverse=True)[1] for name in ("user_id", "item_id")]
        times = table["event_time"].cast(pa.int64()).to_numpy() * 1000
        return cls(codes[0].astype(np.int64), codes[1].astype(np.int64), times)

    @property
    def days(self) -> Column:
        """The day of each event, from 0, in UTC."""
        return np.asarray(self.times // DAY_MS - self.times.min() // DAY_MS)


def bucketize(feature: str, column: pa.Array) -> pa.Array:
    """Returns item + 1: index 0 is a missing item."""
    return pc.add(column, 1).cast(pa.int32())


def train_data(log: Log, model: Model) -> TrainData:
    """Returns every event of the log as a sample, in its order, with the history that the model section asks for."""
    num_items = int(log.items.max()) + 1
    corpus = IdIndex(pa.array(np.arange(num_items)))
    days = [_events_of_day(log, day) for day in range(int(log.days.max()) + 1)]
    history = history_from_tables((_history_day(day) for day in days), corpus, bucketize, features=["h__item"])
    first = int(log.times.min()) // DAY_MS * DAY_MS
    samples = [
        discretise_day(
            day,
            day=number,
            day_start_ms=first + number * DAY_MS,
            feature_rows={name: np.ones(day.num_rows, np.int32) for name in ("user_row", "item_row")},
            features=IndexedFeatures(bucketize, []),
            item_index=corpus,
            history=history,
            cutoff=model.history,
            weights=SampleWeights(),
        )
        for number, day in enumerate(days)
    ]
    histories, users = history.to_tables()
    indices = pa.array(np.arange(num_items + 1), pa.int32())
    tables = {
        "samples": pa.Table.from_batches(samples),
        "user_rows": pa.table({}),
        "item_rows": pa.table({"item": indices}),
        "history": histories,
        "users": users,
        "items": pa.table({"weight": np.ones(num_items), "item": indices.slice(1)}),
    }
    tables["samples"] = tables["samples"].set_column(6, "user_row", pa.array(np.zeros(len(log.items)), pa.int32()))
    sizes: dict[str, Any] = {"embedding_name": "item", "embedding_dim": 4, "num_embeddings": num_items + 1}
    features = (
        TowerFeature(name="item", side=TowerSide.ITEM, **sizes),
        TowerFeature(name="h__item", side=TowerSide.SEQUENCE, **sizes),
    )
    return TrainData(tower_spec(features, model), **tables)


def whole_history_model(history: History, **changes: Any) -> Model:
    """Returns a model section whose towers read whole histories."""
    return Model(history=history, history_length=5000, num_sample=0, **changes)


def _events_of_day(log: Log, day: int) -> pa.Table:
    rows = log.days == day
    return pa.table({"user_id": log.users[rows], "item_id": log.items[rows], "event_time_ms": log.times[rows]})


def _history_day(day: pa.Table) -> pa.Table:
    grouped = day.group_by("user_id").aggregate([("item_id", "list"), ("event_time_ms", "list")])
    items = grouped["item_id_list"]
    return pa.table(
        {"user_id": grouped["user_id"], "item_ids": items, "event_times_ms": grouped["event_time_ms_list"], "h__item": items}
    )
