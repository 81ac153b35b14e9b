"""Generated training data of any size: what is trained, on tables that `TrainData` and every contender read.

Activity of users is log-normal, popularity of items Zipf-Mandelbrot, feature values are uniform. Every sample is an event of
its user's history, and sees the events before it.

Letters: E samples, U users, I items, B rows of a batch, L history items that are pooled, W values of a feature, 0 for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import list_lengths, offsets_of, row_of_value
from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide

Array = npt.NDArray[Any]
TEMPERATURE: Final = 0.1
_DAY_MS: Final = 86_400_000
_DAYS: Final = 30
_BATCH_ROWS: Final = 65_536
_MAX_VALUES: Final = 3


@dataclass(frozen=True)
class Column:
    """One feature: its table's size and width, and whether a row holds up to three values."""

    name: str
    size: int
    dim: int
    is_multi: bool = False


@dataclass(frozen=True)
class Setting:
    """Data, towers and batches of one comparison.

    Attributes:
        user, context, item: features of each side; the first of items is the item itself.
        history: names of item features that are also pooled over the last `history_length` items.
        num_sample: negatives beside the batch's other items, shared by the batch.
        masks_user_positives: whether known items of a user are masked; only ours has such a mask.
    """

    name: str
    samples: int
    users: int
    items: int
    user: tuple[Column, ...]
    context: tuple[Column, ...]
    item: tuple[Column, ...]
    history: tuple[str, ...]
    history_length: int
    hidden: tuple[int, ...]
    output_dim: int
    batch_size: int
    num_sample: int
    masks_user_positives: bool = False

    def column(self, name: str) -> Column:
        return next(column for column in self.item if column.name == name)

    @property
    def num_features(self) -> int:
        """Features of both towers, the pooled ones included."""
        return len(self.user) + len(self.context) + len(self.item) + len(self.history)


def _columns(side: str, sizes: tuple[int, ...], dim: int) -> tuple[Column, ...]:
    return tuple(Column(f"{side}_{place}", size, dim) for place, size in enumerate(sizes))


def setting_of(changes: dict[str, Any]) -> Setting:
    """Returns a setting by its name with some sizes changed: {"name": "wide", "samples": 1000}."""
    sizes = {key: value for key, value in changes.items() if key != "name"}
    return {"wide": _wide, "demo-like": _demo_like}[changes["name"]](**sizes)


def _wide(samples: int = 500_000, users: int = 50_000, items: int = 20_000, batch_size: int = 4096) -> Setting:
    """Returns 35 features of width 16: 20 of the user tower, 10 of the item tower, 5 of the history."""
    sizes = (2, 3, 5, 8, 10, 16, 24, 32, 50, 64, 100, 128, 200, 500, 1000, 2000)
    return Setting(
        name="wide",
        samples=samples,
        users=users,
        items=items,
        user=(*_columns("user", sizes, 16), Column("user_tags_0", 300, 16, True), Column("user_tags_1", 1000, 16, True)),
        context=_columns("context", (24, 7), 16),
        item=(
            Column("item", items + 1, 16),
            *_columns("item", (2, 5, 10, 20, 50, 100, 200, 1000), 16),
            Column("item_tags", 500, 16, True),
        ),
        history=("item", "item_4", "item_5", "item_6", "item_7"),
        history_length=50,
        hidden=(256, 128),
        output_dim=64,
        batch_size=batch_size,
        num_sample=batch_size // 2,
    )


def _demo_like(samples: int = 120_000, users: int = 2_469, items: int = 92_000, batch_size: int = 1024) -> Setting:
    """Returns the shape of the demo: few users with long histories, no hidden layer, wide vectors."""
    return Setting(
        name="demo-like",
        samples=samples,
        users=users,
        items=items,
        user=_columns("user", (11,), 16),
        context=(),
        item=(
            Column("item", items + 1, 128),
            Column("item_type", 2400, 32),
            Column("item_category", 300, 32),
            *_columns("item", (6000, 30, 3, 4000), 16),
        ),
        history=("item", "item_type", "item_category"),
        history_length=100,
        hidden=(),
        output_dim=256,
        batch_size=batch_size,
        num_sample=1024,
        masks_user_positives=True,
    )


def model_of(setting: Setting) -> Model:
    return Model(
        output_dim=setting.output_dim,
        hidden_units=list(setting.hidden),
        temperature=TEMPERATURE,
        history_length=setting.history_length,
        num_sample=setting.num_sample,
        sampler=Sampler.WEIGHTED,
        user_positive_mask=setting.masks_user_positives,
    )


def features_of(setting: Setting) -> list[TowerFeature]:
    past = tuple(setting.column(name) for name in setting.history)
    sides = ((setting.user, TowerSide.USER, ""), (setting.context, TowerSide.CONTEXT, ""), (setting.item, TowerSide.ITEM, ""))
    return [
        TowerFeature(
            name=prefix + column.name,
            side=side,
            embedding_name=column.name,
            embedding_dim=column.dim,
            num_embeddings=column.size,
            is_multi=column.is_multi,
        )
        for columns, side, prefix in (*sides, (past, TowerSide.SEQUENCE, "history__"))
        for column in columns
    ]


def write_tables(folder: Path, setting: Setting) -> None:
    """Writes samples, user_rows, item_rows, history, users and items of a setting, always the same files."""
    rng = np.random.default_rng(17)
    arrays = _events(setting, rng)
    for columns, count in ((setting.user, setting.users), (setting.item, setting.items), (setting.context, setting.samples)):
        arrays |= {column.name: _values(column, count, rng) for column in columns}
    arrays["item"] = np.arange(1, setting.items + 1, dtype=np.int32)
    folder.mkdir(parents=True)
    for name, table in _tables(setting, arrays).items():
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH_ROWS)


def read_tables(folder: Path) -> dict[str, pa.Table]:
    return {path.stem: pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all() for path in folder.glob("*.arrow")}


class ArrayReader:
    """The tables in memory, for contenders that gather batches of tensors themselves.

    Attributes:
        item: item of each sample [E].
        user: user of each sample [E].
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._setting, self._tables = setting, read_tables(folder)
        self.item, self.user = self._array("samples", "item_index"), self._array("samples", "user_index")
        self._ends, self._starts = self._array("samples", "history_end"), self._array("users", "history_start")
        self._history = self._array("history", "item_index")
        sides = (("user_rows", setting.user), ("item_rows", setting.item), ("samples", setting.context))
        self._values = {column.name: self._array(table, column.name) for table, columns in sides for column in columns}

    def user_side(self, rows: Array) -> dict[str, Tensor]:
        """Returns the inputs of the user tower by name [B, W]; those of the history are named history__<item feature>."""
        found = {column.name: self._gather(column.name, self.user[rows]) for column in self._setting.user}
        found |= {column.name: self._gather(column.name, rows) for column in self._setting.context}
        positions = self._ends[rows][:, None] - 1 - np.arange(self._setting.history_length)  # newest first [B, L]
        is_present = positions >= self._starts[self.user[rows]][:, None]
        items = self._history[np.maximum(positions, 0)]
        for name in self._setting.history:
            found[f"history__{name}"] = torch.from_numpy(np.where(is_present, self._values[name][items], 0)).long()
        return found

    def item_side(self, items: Array) -> dict[str, Tensor]:
        """Returns the inputs of the item tower by name [B, W]."""
        return {column.name: self._gather(column.name, items) for column in self._setting.item}

    def _gather(self, name: str, owners: Array) -> Tensor:
        values = torch.from_numpy(self._values[name][owners]).long()
        return values[:, None] if values.ndim == 1 else values

    def _array(self, table: str, name: str) -> Array:
        """Returns a column [.], of lists [., W] filled up with 0."""
        column = self._tables[table].column(name).combine_chunks()
        if not pa.types.is_list(column.type):
            return np.asarray(column)
        lengths = list_lengths(column)
        owner = row_of_value(offsets_of(lengths))
        values = np.zeros((len(column), _MAX_VALUES), np.int32)
        values[owner, np.arange(len(owner)) - offsets_of(lengths)[owner]] = np.asarray(column.flatten())
        return values


def _events(setting: Setting, rng: np.random.Generator) -> dict[str, Array]:
    """Returns the interactions by (user, time), and the samples by time, which point into them."""
    activity = rng.lognormal(0.0, 1.0, setting.users)
    popularity = 1.0 / (np.arange(setting.items) + 20.0)
    user = np.sort(rng.choice(setting.users, setting.samples, p=activity / activity.sum())).astype(np.int32)
    item = rng.permutation(setting.items)[rng.choice(setting.items, setting.samples, p=popularity / popularity.sum())]
    time_ms = rng.permutation(setting.samples) * (_DAYS * _DAY_MS // setting.samples)
    time_ms = time_ms[np.lexsort((time_ms, user))]  # times ascend within each user
    by_time = np.argsort(time_ms)
    return {
        "history.item": item.astype(np.int32),
        "history.time": time_ms,
        "history.start": np.searchsorted(user, np.arange(setting.users + 1)),
        "sample.user": user[by_time],
        "sample.item": item.astype(np.int32)[by_time],
        "sample.end": by_time,
        "sample.time": time_ms[by_time],
    }


def _values(column: Column, count: int, rng: np.random.Generator) -> Array:
    if not column.is_multi:
        return rng.integers(1, column.size, count, dtype=np.int32)
    values = rng.integers(1, column.size, (count, _MAX_VALUES), dtype=np.int32)
    values[np.arange(_MAX_VALUES) >= rng.integers(0, _MAX_VALUES + 1, count)[:, None]] = 0
    return values


def _tables(setting: Setting, arrays: dict[str, Array]) -> dict[str, pa.Table]:
    samples = {
        "item_index": arrays["sample.item"],
        "user_index": arrays["sample.user"],
        "history_end": arrays["sample.end"],
        "weight": np.ones(setting.samples, np.float32),
        "event_time_ms": arrays["sample.time"],
        "day": (arrays["sample.time"] // _DAY_MS).astype(np.int32),
        "user_row": arrays["sample.user"],
        "item_row": arrays["sample.item"],
    }
    item_features = {column.name: _arrow(arrays[column.name]) for column in setting.item}
    history_items = arrays["history.item"]
    starts = arrays["history.start"]
    return {
        "samples": pa.table({**samples, **{column.name: arrays[column.name] for column in setting.context}}),
        "user_rows": pa.table({column.name: _arrow(arrays[column.name]) for column in setting.user}),
        "item_rows": pa.table(item_features),
        "items": pa.table({"weight": np.bincount(history_items, minlength=setting.items) + 1.0, **item_features}),
        "users": pa.table({"history_start": starts[:-1], "history_end": starts[1:]}),
        "history": pa.table(
            {"item_index": history_items, "event_time_ms": arrays["history.time"]}
            | {f"history__{name}": arrays[name][history_items] for name in setting.history}
        ),
    }


def _arrow(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    offsets = np.append(0, np.cumsum((values > 0).sum(1))).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values[values > 0])
