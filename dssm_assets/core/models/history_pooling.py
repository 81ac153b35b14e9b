"""The user's past as the user tower sees it: the last events before a position, as bags of every sub-feature.

Belongs here: `HistoryReader`. Does not belong here: where a sample's history ends (train_samples decides that) and what a
pooling makes of the events (`history_pooling`).

A history is a slice of one table sorted by (user, time): the events start .. end - 1. It is gathered ragged, so a
short history costs what it holds and nothing is padded.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags, root_bags
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges, row_of_value
from dssm_assets.core.arrays.table_view import TableView
from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.config.model import Pooling, PoolingKind
from dssm_assets.core.errors import Fault, LeakError, SchemaError
from dssm_assets.core.models.tower_input import check_indices, feature_columns
from dssm_assets.core.models.tower_spec import TowerSpec

MS_PER_DAY: Final = 86_400_000
_SCALES: Final = 5
"""recency: an event that is further back than this many scales weighs less than e ** -5 of the newest and is not read."""


@dataclass(frozen=True)
class Past:
    """The last events of B rows, oldest first."""

    values: tuple[IntArray, ...]  # per sub-feature [n], 0 = missing
    offsets: IntArray  # [B + 1]
    times: IntArray | None  # [n] ms; None where no pooling asks for ages

    @cached_property
    def ranks(self) -> IntArray:
        """How many events of the row are newer [n]."""
        lengths = np.diff(self.offsets)
        ranks: IntArray = np.repeat(self.offsets[1:], lengths) - 1 - np.arange(self.offsets[-1], dtype=np.int64)
        return ranks

    @cached_property
    def age_days(self) -> npt.NDArray[np.float64]:
        """Days between an event and its row's newest [n].

        Raises:
            ValueError: the times were not gathered.
        """
        if self.times is None:
            raise ValueError("expected the times of the events, got none; gather them where a pooling has a half-life")
        lengths = np.diff(self.offsets)
        filled = lengths > 0
        newest = np.repeat(self.times[self.offsets[1:][filled] - 1], lengths[filled])
        return np.asarray((newest - self.times) / MS_PER_DAY)

    def last(self, count: int) -> Past:
        """Returns the same rows with so many events at most."""
        lengths = np.diff(self.offsets)
        if lengths.max(initial=0) <= count:
            return self
        kept = self.ranks < count
        times = None if self.times is None else self.times[kept]
        return Past(tuple(column[kept] for column in self.values), offsets_of(np.minimum(lengths, count)), times)


def reach(pooling: Pooling) -> int:
    """Returns how many events the pooling reads at most."""
    if pooling.kind is PoolingKind.RECENCY:
        return min(pooling.length, math.ceil(_SCALES * pooling.scale))
    return pooling.length


def has_ages(pooling: Pooling) -> bool:
    """Tells whether the pooling needs to know when events were."""
    return pooling.kind in (PoolingKind.MEAN, PoolingKind.ROOT) and pooling.half_life_days is not None


def pooled(pooling: Pooling, past: Past) -> tuple[Bags, ...]:
    """Returns one bag per sub-feature.

    Of an attention pooling the bags are aligned: the values at one place are those of one event, and may be missing (0)
    while another sub-feature of the event is not; their weights are 1.
    """
    seen = past.last(reach(pooling))
    if pooling.kind is PoolingKind.ATTENTION:
        return _aligned(seen)
    make = root_bags if pooling.kind is PoolingKind.ROOT else mean_bags
    importance = _importance(pooling, seen)
    if not pooling.sqrt_repeats:
        return tuple(make(column, seen.offsets, importance) for column in seen.values)
    return tuple(make(column, seen.offsets, _repeats_as_root(column, seen.offsets, importance)) for column in seen.values)


def _importance(pooling: Pooling, past: Past) -> npt.NDArray[np.float64] | None:
    if pooling.kind is PoolingKind.RECENCY:
        return np.asarray(np.exp(past.ranks / -pooling.scale))
    if pooling.half_life_days is None:
        return None
    # The floor keeps an ancient event's weight above zero: a row whose newest event has no value still has a mean.
    return np.asarray(np.exp2(-np.minimum(past.age_days / float(pooling.half_life_days), 900.0)))


def _repeats_as_root(
    values: IntArray, offsets: IntArray, importance: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Returns importances of which those of one row and value sum to the root of what they summed to [n].

    Three events of importance 1, two of them of one value: 1 / sqrt(2), 1 / sqrt(2), 1.
    """
    given = np.ones(len(values)) if importance is None else importance
    keys = row_of_value(offsets) * (int(values.max(initial=0)) + 1) + values
    _, kind = np.unique(keys, return_inverse=True)
    return np.asarray(given / np.sqrt(np.bincount(kind, weights=given))[kind])


def _aligned(past: Past) -> tuple[Bags, ...]:
    present = np.logical_or.reduce([column > 0 for column in past.values])
    offsets = offsets_of(np.bincount(row_of_value(past.offsets)[present], minlength=len(past.offsets) - 1))
    weights = np.ones(int(offsets[-1]), np.float32)
    return tuple(Bags(column[present].astype(np.int64, copy=False), offsets, weights) for column in past.values)


_BLOCK_ROWS = 1 << 18


class HistoryReader:
    """Gathers histories from the table of all users' positive events."""

    def __init__(self, table: pa.Table, spec: TowerSpec) -> None:
        self._features = spec.sequences
        self._poolings = tuple(view.pooling for view in spec.history_views)
        self._reach = max(map(reach, self._poolings), default=0)
        self._has_ages = any(map(has_ages, self._poolings))
        columns = {EVENT_TIME_MS: pa.int64(), **feature_columns(self._features)} if self._features else {}
        self._view = TableView(table, "history", columns)
        self.num_rows: int = table.num_rows
        check_indices(self._view, "history", self._features)

    def read(self, starts: IntArray, ends: IntArray) -> tuple[tuple[Bags, ...], npt.NDArray[np.float32] | None]:
        """Returns the bags of the specification's history views, and the rows that have no history [B].

        The bags come view by view, in each one per sub-feature. Without sub-features there are none, and None.
        """
        if not self._features:
            return (), None
        lengths = np.minimum(ends - starts, self._reach)
        return self.read_events(ranges(ends - lengths, lengths), offsets_of(lengths))

    def read_events(self, positions: IntArray, offsets: IntArray) -> tuple[tuple[Bags, ...], npt.NDArray[np.float32] | None]:
        """Returns the same of pasts that are no slices of the table.

        Args:
            positions: events that each row sees, oldest first, row after row [n].
            offsets: start of each row and the end of the last [B + 1].
        """
        if not self._features:
            return (), None
        take = partial(self._view.take, selection=self._view.select(positions))
        times = take(EVENT_TIME_MS) if self._has_ages else None
        past = Past(tuple(take(feature.name) for feature in self._features), offsets, times)
        bags = tuple(bag for pooling in self._poolings for bag in pooled(pooling, past))
        return bags, (np.diff(offsets) == 0).astype(np.float32)

    def check_bounds(self, starts: IntArray, ends: IntArray, where: str) -> None:
        """Checks that every history is a slice of the table.

        Raises:
            SchemaError: a history starts after its end or leaves the table.
        """
        wrong = (starts < 0) | (ends < starts) | (ends > self.num_rows)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            got = f"{int(wrong.sum())} rows outside, first row {row}: {int(starts[row])} .. {int(ends[row])}"
            expected = f"0 <= start <= end <= {self.num_rows}"
            raise SchemaError(Fault(where, expected, got, "write bounds and history together"))

    def check_causal(self, starts: IntArray, ends: IntArray, as_of_ms: IntArray, where: str) -> None:
        """Checks that every history ended strictly before its row's moment.

        Raises:
            LeakError: a row sees an event of its own moment or later.
        """
        if not self._features:
            return
        for begin in range(0, len(ends), _BLOCK_ROWS):
            block = slice(begin, begin + _BLOCK_ROWS)
            filled = np.flatnonzero(ends[block] > starts[block])
            last = self._view.take(EVENT_TIME_MS, self._view.select(ends[block][filled] - 1))
            late = np.flatnonzero(last >= as_of_ms[block][filled])
            if len(late):
                row = filled[late[0]]
                got = f"{len(late)} of them end later, first row {begin + int(row)}: {int(last[late[0]])}"
                expected = f"a history strictly before the row's moment ({int(as_of_ms[block][row])} ms)"
                raise LeakError(Fault(where, expected, got, "end the history before the event"))
