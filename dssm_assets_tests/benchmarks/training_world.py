"""Generated training data of any size: tables for ours, arrays for the others.

Activity of users is log-normal, popularity of items Zipf-Mandelbrot, feature values are uniform. Every sample is an event of
its user's history, and sees the events before it.

    tables/*.arrow     what `TrainData` reads: samples, user_rows, item_rows, history, users, items
    arrays/*.npy       the same numbers: `sample.user`, `sample.item`, `sample.end`, `history.item`, `history.start`,
                       one array per feature: of a single value [U] or [I], of several [U, W] or [I, W] with 0 for none

Belongs here: the numbers and their files. Does not belong here: how large they are (`training_settings.py`), reading arrays
(`training_arrays.py`), who is trained on them and what is measured.

Letters: E samples, U users, I items, W values of a feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets_tests.benchmarks.training_settings import Column, Setting

Array = npt.NDArray[Any]

_DAY_MS: Final = 86_400_000
_DAYS: Final = 30
_BATCH_ROWS: Final = 65_536
_MAX_VALUES: Final = 3


def write(folder: Path, setting: Setting, seed: int = 17) -> None:
    """Writes the arrays and tables of the setting; the same seed gives the same files."""
    rng = np.random.default_rng(seed)
    arrays = _events(setting, rng)
    for columns, count in ((setting.user, setting.users), (setting.item, setting.items), (setting.context, setting.samples)):
        arrays |= {column.name: _values(column, count, rng) for column in columns}
    arrays["item"] = np.arange(1, setting.items + 1, dtype=np.int32)
    (folder / "arrays").mkdir(parents=True)
    (folder / "tables").mkdir()
    for name, array in arrays.items():
        np.save(folder / "arrays" / f"{name}.npy", array)
    for name, table in _tables(setting, arrays).items():
        with pa.OSFile(str(folder / "tables" / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH_ROWS)


def read_tables(folder: Path) -> dict[str, pa.Table]:
    """Returns the tables by name, mapped into memory."""
    return {
        path.stem: pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all() for path in (folder / "tables").glob("*.arrow")
    }


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
