"""Reads the user's history as the user tower sees it: the latest events before a position, as bags of every sub-feature.

A history is a slice of one table sorted by (user, time): the events start .. end - 1. It is read ragged, so a short
history costs as much as its events and nothing is padded.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

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
from dssm_assets.core.models.poolings.history_pooling import HistoryEvents
from dssm_assets.core.models.poolings.registry import make_pooling
from dssm_assets.core.models.tower_input import HistoryInput, check_indices, feature_columns
from dssm_assets.core.models.tower_spec import TowerSpec

_BLOCK_ROWS = 1 << 18
MS_PER_SECOND: Final = 1000


class HistoryReader:
    """Reads histories from the table of all users' positive events."""

    def __init__(self, table: pa.Table, spec: TowerSpec) -> None:
        """Checks the columns; `table` has the events, sorted by user and time."""
        self._features, self._encoded = spec.sequences, spec.encoded
        self._poolings = tuple(make_pooling(view.pooling) for view in spec.history_views if not view.is_sequence)
        self._lengths = tuple(view.pooling.length for view in spec.sequence_views)
        self._num_events = max((pooling.num_events for pooling in self._poolings), default=0)
        self._needs_times = any(pooling.needs_times for pooling in self._poolings)
        columns = {EVENT_TIME_MS: pa.int64(), **feature_columns(self._features)} if self._features else {}
        self._view = TableView(table, "history", columns)
        self.num_rows: int = table.num_rows
        check_indices(self._view, "history", self._features)

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
        events = HistoryEvents(values, offsets, times)
        return HistoryInput(tuple(bag for pooling in self._poolings for bag in pooling.pool(events)), is_empty=is_empty)

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
