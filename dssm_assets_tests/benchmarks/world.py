"""Generates a world of any size: a skewed log, users and items with many columns.

Users and items follow a Zipf-Mandelbrot distribution. Everything is determined by the seed. Each day of the log and each block
of the user and item tables has its own random stream, so files are written one block at a time, and a block does not depend
on the blocks before it.

    source/users.parquet, source/items.parquet     one snapshot each, blocks of BLOCK_ROWS rows
    source/behavior/ds=YYYY-MM-DD/part.parquet     one file per day, by time
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core import columns as col

BLOCK_ROWS: Final = 131_072
NUMBERS: Final = {"user": 15, "item": 15}
CATEGORIES: Final = {
    "user": (2, 3, 7, 12, 30, 100, 350, 1_000, 10_000, 100_000),
    "item": (2, 5, 20, 60, 200, 800, 5_000, 20_000, 100_000),
}
TAGS: Final = {"user": 2_000, "item": 5_000}
EVENTS: Final = ("click", "buy")
PAGES: Final = 8

_DAY_MS: Final = 86_400_000
_MOST_TAGS: Final = 5
_MISSING_FRAC: Final = 0.05
_STREAMS: Final = {"behavior": 0, "user": 1, "item": 2}


@dataclass(frozen=True)
class World:
    """The size of the world, and the seed that determines it.

    Attributes:
        rows: events of the log over all days.
        users: rows of the user table.
        items: rows of the item table.
        days: days of the log.
        seed: seed of all random streams.
        start: first day of the log.
        user_exponent: the probability of the user of rank r is proportional to 1 / (r + 20) ** user_exponent.
        item_exponent: the same for items.
    """

    rows: int
    users: int
    items: int
    days: int
    seed: int = 17
    start: str = "2024-03-01"
    user_exponent: float = 0.8
    item_exponent: float = 1.0

    @property
    def log_days(self) -> list[str]:
        return [self._day(number) for number in range(self.days)]

    @property
    def day_before_log(self) -> str:
        """The first day of the calendar, which has the features of the first samples."""
        return self._day(-1)

    @property
    def evaluation_day(self) -> str:
        """The day after the log; its window ends with the last day of the log."""
        return self._day(self.days)

    def user_ids(self, ranks: Any) -> pa.Array:
        """Returns the user id of each rank (0 is the most active user): int64, a permutation of 1 .. users."""
        return pa.array(_shuffle_ranks(ranks, self.users) + 1)

    def item_ids(self, ranks: Any) -> pa.Array:
        """Returns the item id of each rank (0 is the most popular item): text."""
        return _named("i", _shuffle_ranks(ranks, self.items))

    def day_rows(self, number: int) -> int:
        """Returns the number of events of a day (0 is the first)."""
        return self.rows // self.days + (number < self.rows % self.days)

    def behavior(self, number: int) -> pa.Table:
        """Returns the log of a day, sorted by time: user_id, item_id, event, event_time (unix ms), page."""
        rng = self._rng("behavior", number)
        count = self.day_rows(number)
        start_ms = int(dt.datetime.fromisoformat(self._day(number)).replace(tzinfo=dt.UTC).timestamp()) * 1000
        return pa.table(
            {
                col.USER_ID: self.user_ids(_ranks(rng, count, self.users, self.user_exponent)),
                col.ITEM_ID: self.item_ids(_ranks(rng, count, self.items, self.item_exponent)),
                col.EVENT: _picked(EVENTS, (rng.random(count) < 0.1).astype(np.int32)),
                "event_time": start_ms + np.sort(rng.integers(0, _DAY_MS, count)),
                "page": _named("page", _ranks(rng, count, PAGES, 1.0)),
            }
        )

    def entities(self, side: str) -> Iterator[pa.Table]:
        """Yields the user or item table in blocks, sorted by rank."""
        size, name_ids = (self.users, self.user_ids) if side == "user" else (self.items, self.item_ids)
        for block, first in enumerate(range(0, size, BLOCK_ROWS)):
            ranks = np.arange(first, min(first + BLOCK_ROWS, size))
            rng = self._rng(side, block)
            columns = {f"{side}_id": name_ids(ranks)}
            columns |= {name: _number(rng, len(ranks), place) for place, name in enumerate(numeric_columns(side))}
            for name, values in zip(categorical_columns(side), CATEGORIES[side], strict=True):
                columns[name] = _category(rng, len(ranks), name, values)
            yield pa.table(columns | {f"{side}_tags": _tags(rng, len(ranks), side)})

    def _day(self, number: int) -> str:
        return (dt.date.fromisoformat(self.start) + dt.timedelta(days=number)).isoformat()

    def _rng(self, stream: str, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, _STREAMS[stream], number]))


def numeric_columns(side: str) -> list[str]:
    """Returns the names of a side's numeric columns, which are also the names of their features."""
    return [f"{side}_num_{place}" for place in range(NUMBERS[side])]


def categorical_columns(side: str) -> list[str]:
    """Returns the names of a side's categorical columns, which are also the names of their features."""
    return [f"{side}_cat_{place}" for place in range(len(CATEGORIES[side]))]


def write_world(world: World, folder: Path) -> None:
    """Writes the source tables, one block at a time."""
    for side in ("user", "item"):
        _write(folder / "source" / f"{side}s.parquet", world.entities(side))
    for number, ds in enumerate(world.log_days):
        _write(folder / "source" / "behavior" / f"ds={ds}" / "part.parquet", iter([world.behavior(number)]))


def _write(path: Path, blocks: Iterator[pa.Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(blocks)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first, row_group_size=BLOCK_ROWS)
        for block in blocks:
            writer.write_table(block, row_group_size=BLOCK_ROWS)


@functools.lru_cache(maxsize=64)
def _distribution(size: int, exponent: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    below = np.cumsum(1.0 / (np.arange(size) + 20.0) ** exponent)
    shares: np.ndarray[Any, np.dtype[np.float64]] = below / below[-1]
    return shares


def _ranks(rng: np.random.Generator, count: int, size: int, exponent: float) -> Any:
    return np.minimum(np.searchsorted(_distribution(size, exponent), rng.random(count), side="right"), size - 1)


def _shuffle_ranks(ranks: Any, size: int) -> Any:
    """Permutes 0 .. size-1, so that ids do not reveal ranks."""
    step = max(round(size * 0.618), 1)
    while math.gcd(step, size) != 1:
        step += 1
    return np.asarray(ranks, dtype=np.int64) * step % size


def _named(prefix: str, numbers: Any) -> pa.Array:
    distinct, codes = np.unique(numbers, return_inverse=True)
    return _picked([f"{prefix}_{number}" for number in distinct.tolist()], codes)


def _picked(words: Any, codes: Any, missing: Any = None) -> pa.Array:
    indices = pa.array(np.asarray(codes, dtype=np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string())).cast(pa.string())


def _category(rng: np.random.Generator, count: int, name: str, values: int) -> pa.Array:
    codes = _ranks(rng, count, values, 0.9)
    missing = rng.random(count) < _MISSING_FRAC
    distinct, places = np.unique(codes, return_inverse=True)
    return _picked([f"{name}_value_{number}" for number in distinct.tolist()], places, missing)


def _number(rng: np.random.Generator, count: int, place: int) -> pa.Array:
    """Returns counts, ratios of two counts, or amounts with two decimals, in turn, like statistics of behavior."""
    missing = rng.random(count) < _MISSING_FRAC
    if place % 3 == 0:
        return pa.array(rng.geometric(0.05, count), pa.int64(), mask=missing)
    if place % 3 == 1:
        return pa.array(rng.integers(0, 50, count) / rng.integers(1, 200, count), pa.float64(), mask=missing)
    return pa.array(np.round(rng.lognormal(3.0, 1.0, count), 2), pa.float64(), mask=missing)


def _tags(rng: np.random.Generator, count: int, side: str) -> pa.Array:
    """Returns several words per row: a list for users, a text for items."""
    lengths = rng.integers(0, _MOST_TAGS + 1, count)
    words = _named(f"{side}_tag", _ranks(rng, int(lengths.sum()), TAGS[side], 0.9))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    bags = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), words)
    return bags if side == "user" else pc.binary_join(bags, "\x1d")
