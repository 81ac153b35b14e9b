"""Reads the user's history as the user tower sees it: the latest events before a position, as bags of every sub-feature.

A history is a slice of one table sorted by (user, time): the events start .. end - 1. It is read ragged, so a short
history costs as much as its events and nothing is padded.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.event_sequences import EventSequences, SharedWindows, shared_passes
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.arrays.table_view import TableView
from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.errors import Fault, LeakError, SchemaError
from dssm_assets.core.models.poolings.history_pooling import HistoryEvents, group_repeats
from dssm_assets.core.models.poolings.registry import make_pooling
from dssm_assets.core.models.tower_input import HistoryInput, check_indices, feature_columns
from dssm_assets.core.models.tower_spec import TowerSpec

_BLOCK_ROWS = 1 << 18
_MAX_FIRSTS = 1 << 25
"""Events of which the first with the same value is kept in memory, 4 bytes each."""
MS_PER_SECOND: Final = 1000


class HistoryReader:
    """Reads histories from the table of all users' positive events."""

    def __init__(self, table: pa.Table, spec: TowerSpec, user_starts: IntArray | None = None) -> None:
        """Reads nothing yet.

        Args:
            table: events, sorted by user and time.
            user_starts: where the events of each user begin, ascending; with them, repeats are found once for many reads.
        """
        self._features, self._encoded = spec.sequences, spec.encoded
        self._poolings = tuple(make_pooling(view.pooling) for view in spec.history_views if not view.is_sequence)
        self._lengths = tuple(view.pooling.length for view in spec.sequence_views)
        self._num_events = max((pooling.num_events for pooling in self._poolings), default=0)
        self._needs_times = any(pooling.needs_times for pooling in self._poolings)
        columns = {EVENT_TIME_MS: pa.int64(), **feature_columns(self._features)} if self._features else {}
        self._view = TableView(table, "history", columns)
        self.num_rows: int = table.num_rows
        check_indices(self._view, "history", self._features)
        has_damped = any(pooling.settings.sqrt_repeats for pooling in self._poolings)
        self._user_starts = user_starts if has_damped and self.num_rows <= _MAX_FIRSTS else None
        self._firsts: tuple[npt.NDArray[np.int32], ...] = ()
        self._events_read = 0

    def read(self, starts: IntArray, ends: IntArray, windows: SharedWindows | None = None) -> HistoryInput:
        """Returns what every pooling reads; nothing without sub-features.

        Args:
            starts: first event of each row's history [B].
            ends: one after the last event of each row's history [B].
            windows: which rows share the events that poolings of kind sequence read; None: every row has its own.
        """
        if not self._features:
            return HistoryInput()
        lengths = np.minimum(ends - starts, self._num_events)
        plain = self._pool(ranges(ends - lengths, lengths), offsets_of(lengths), ends > starts)
        if windows is None:
            passes = [_own_passes(np.minimum(ends - starts, length), ends) for length in self._lengths]
        else:
            passes = [shared_passes(windows.first_events(starts, ends, length), ends) for length in self._lengths]
        return replace(plain, sequences=tuple(self._read_sequences(*parts) for parts in passes))

    def read_events(self, positions: IntArray, offsets: IntArray) -> HistoryInput:
        """Returns the same for histories that are not slices of the table.

        Args:
            positions: of the events that each row sees, oldest first, row after row [n].
            offsets: start of each row and the end of the last [B + 1].
        """
        if not self._features:
            return HistoryInput()
        plain = self._pool(positions, offsets, np.diff(offsets) > 0)
        passes = []
        for length in self._lengths:
            at, bounds, last = _own_passes(np.minimum(np.diff(offsets), length), offsets[1:])
            passes.append((positions[at], bounds, last))
        return replace(plain, sequences=tuple(self._read_sequences(*parts) for parts in passes))

    def _pool(self, positions: IntArray, offsets: IntArray, has_events: npt.NDArray[np.bool_]) -> HistoryInput:
        is_empty = (~has_events).astype(np.float32)
        if not self._poolings:
            return HistoryInput(is_empty=is_empty)
        read = partial(self._view.read_column, selection=self._view.select(positions))
        times = read(EVENT_TIME_MS) if self._needs_times else None
        values = tuple(read(feature.name) for feature in self._features)
        events = HistoryEvents(values, offsets, times, self._read_firsts(positions, offsets))
        return HistoryInput(tuple(bag for pooling in self._poolings for bag in pooling.pool(events)), is_empty=is_empty)

    def _read_firsts(self, positions: IntArray, offsets: IntArray) -> tuple[IntArray, ...] | None:
        """Returns `HistoryEvents.firsts` of slices that begin with their user; None for others, and before it is worth it."""
        self._events_read += len(positions)
        if self._user_starts is None or self._events_read <= self.num_rows:
            return None
        lengths = np.diff(offsets)
        begins = positions[offsets[:-1][lengths > 0]]
        at = np.searchsorted(self._user_starts, begins)
        if (at == len(self._user_starts)).any() or (self._user_starts[at] != begins).any():
            return None
        if not self._firsts:
            self._firsts = tuple(self._find_firsts(feature.name) for feature in self._features)
        shift = np.repeat(offsets[:-1][lengths > 0] - begins, lengths[lengths > 0])
        return tuple(np.add(firsts[positions], shift, dtype=np.int64) for firsts in self._firsts)

    def _find_firsts(self, name: str) -> npt.NDArray[np.int32]:
        """Returns for every event the first one of its user with the same value [num_rows]."""
        assert self._user_starts is not None
        firsts = np.empty(self.num_rows, np.int32)
        starts = np.unique(self._user_starts)
        bounds = np.unique([0, *starts[np.diff(starts // _BLOCK_ROWS, prepend=-1) > 0].tolist(), self.num_rows])
        for begin, end in itertools.pairwise(bounds.tolist()):
            positions = np.arange(begin, end)
            values = self._view.read_column(name, self._view.select(positions))
            groups = group_repeats(np.searchsorted(starts, positions, side="right"), values)
            # Groups are numbered by their first event.
            firsts[begin:end] = begin + np.flatnonzero(np.diff(np.maximum.accumulate(groups), prepend=-1) > 0)[groups]
        return firsts

    def _read_sequences(self, positions: IntArray, offsets: IntArray, last: IntArray) -> EventSequences:
        read = partial(self._view.read_column, selection=self._view.select(positions))
        values = tuple(read(feature.name).astype(np.int64, copy=False) for feature in self._encoded)
        return EventSequences(values, read(EVENT_TIME_MS) // MS_PER_SECOND, offsets, last).without_empty_events()

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
            raise SchemaError(Fault(where, expected, got, "build bounds and history from the same events"))

    def check_causal(self, starts: IntArray, ends: IntArray, as_of_ms: IntArray, *, where: str, remedy: str) -> None:
        """Checks that every history ends strictly before its row's timestamp.

        Args:
            starts: first event of each row's history [B].
            ends: one after the last event of each row's history [B].
            as_of_ms: timestamp of each row [B].

        Raises:
            LeakError: a row sees an event of its own timestamp or later.
        """
        if not self._features:
            return
        num_late, first = 0, ""
        for begin in range(0, len(ends), _BLOCK_ROWS):
            block = slice(begin, begin + _BLOCK_ROWS)
            filled = np.flatnonzero(ends[block] > starts[block])
            last = self._view.read_column(EVENT_TIME_MS, self._view.select(ends[block][filled] - 1))
            late = np.flatnonzero(last >= as_of_ms[block][filled])
            if len(late) and not num_late:
                row = begin + int(filled[late[0]])
                first = f"row {row}, timestamp {int(as_of_ms[row])} ms, last event at {int(last[late[0]])} ms"
            num_late += len(late)
        if num_late:
            got = f"{num_late} with events at or after it; first: {first}"
            raise LeakError(Fault(where, "histories that end strictly before their row's timestamp", got, remedy))


def _own_passes(lengths: IntArray, ends: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Returns the last events of every row as a pass of its own, in the form of `shared_passes`."""
    offsets = offsets_of(lengths)
    return ranges(ends - lengths, lengths), offsets, np.where(lengths > 0, offsets[1:] - 1, -1)
