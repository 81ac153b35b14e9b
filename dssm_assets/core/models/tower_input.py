"""Reads a tower's input for a batch of rows from tables of embedding indices.

All histories are in one table of events sorted by (user, time); a history is its slice start .. end - 1. The user tower sees
the last events of this slice, as one bag per sub-feature. Bags have no padding, so a short history costs only its events.

Letters: B rows, F single-valued features, n events of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags, weighted_bags
from dssm_assets.core.arrays.event_sequences import EventSequences, SharedWindows, shared_passes
from dssm_assets.core.arrays.ragged import IntArray, number_values, offsets_of, ranges
from dssm_assets.core.arrays.table_view import TableView
from dssm_assets.core.columns import EVENT_TIME_MS, feature_weights
from dssm_assets.core.errors import Fault, LeakError, SchemaError
from dssm_assets.core.models.poolings import HistoryEvents, make_pooling
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec

MS_PER_SECOND: Final = 1000


@dataclass(frozen=True)
class TowerInput:
    """Embedding indices of B rows.

    Attributes:
        singles: indices of the single-valued features, in the order of the specification [B, F].
        bags: first the bags of each multi-valued feature, then of each pooling and sub-feature, in the order of
            `TowerSpec.history_views`. Poolings of kind sequence have no bags.
        is_empty_history: 1.0 for a row without history, else 0.0 [B]. None if the tower reads no history.
        sequences: the events for each pooling of kind sequence. Several rows may share an event.
    """

    singles: IntArray
    bags: tuple[Bags, ...] = ()
    is_empty_history: npt.NDArray[np.float32] | None = None
    sequences: tuple[EventSequences, ...] = ()

    def __len__(self) -> int:
        return len(self.singles)

    def with_history(self, history: TowerInput) -> TowerInput:
        """Adds the histories read by a `HistoryReader` to the features of the user tower."""
        return replace(history, singles=self.singles, bags=self.bags + history.bags)


class SideReader:
    """Reads features of one tower from a table; not the history."""

    def __init__(self, table: pa.Table, name: str, features: Sequence[TowerFeature]) -> None:
        self._view = TableView(table, name, feature_columns(features))
        check_indices(self._view, features)
        self._singles = [feature.name for feature in features if not feature.is_multi]
        self._multis = [feature for feature in features if feature.is_multi]

    def read(self, rows: IntArray) -> TowerInput:
        """Returns the features of these table rows, in the given order."""
        selection = self._view.select(rows)
        singles = np.zeros((len(rows), len(self._singles)), np.int64)  # [B, F]
        for position, name in enumerate(self._singles):
            singles[:, position] = self._view.read_column(name, selection)
        bags = []
        for feature in self._multis:
            values, offsets = self._view.read_list(feature.name, selection)
            if feature.is_weighted:
                weights, _ = self._view.read_list(feature_weights(feature.name), selection)
                bags.append(weighted_bags(values, offsets, weights))
            else:
                bags.append(mean_bags(values, offsets))
        return TowerInput(singles, tuple(bags))


def find_equal_rows(inputs: TowerInput) -> tuple[IntArray, IntArray]:
    """Groups rows with equal values. Returns the first row of each group, ascending [M], and the group of each row [n]."""
    columns = [inputs.singles, *(_number_bags(bag)[:, None] for bag in inputs.bags)]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1), np.int64)
    return number_values(_as_texts(rows, np.arange(len(rows) + 1) * rows.shape[1]))


def _number_bags(bag: Bags) -> IntArray:
    values, weights = (number_values(_as_texts(numbers, bag.offsets))[1] for numbers in (bag.values, bag.weights))
    return values * (1 + int(weights.max(initial=0))) + weights


def _as_texts(numbers: npt.NDArray[Any], offsets: IntArray) -> pa.Array:
    data = np.ascontiguousarray(numbers)
    buffers = [None, pa.py_buffer(offsets.astype(np.int64) * data.itemsize), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


class HistoryReader:
    """Reads users' histories from the table of all positive events."""

    def __init__(self, table: pa.Table, spec: TowerSpec) -> None:
        """Checks the columns of `table`, the events sorted by user and time."""
        self._features, self._encoded = spec.sequences, spec.encoded
        self._poolings = tuple(make_pooling(view.pooling) for view in spec.history_views if not view.is_sequence)
        self._lengths = tuple(view.pooling.length for view in spec.sequence_views)
        self._num_events = max((pooling.num_events for pooling in self._poolings), default=0)
        self._needs_times = any(pooling.needs_times for pooling in self._poolings)
        columns = {EVENT_TIME_MS: pa.int64(), **feature_columns(self._features)} if self._features else {}
        self._view = TableView(table, "history", columns)
        check_indices(self._view, self._features)

    def read(self, starts: IntArray, ends: IntArray, windows: SharedWindows | None = None) -> TowerInput:
        """Reads the events start .. end - 1 of each row [B] for every pooling. The result has a history but no features.

        `windows` says which rows share events in poolings of kind sequence. None: every row has its own.
        """
        lengths = np.minimum(ends - starts, self._num_events)
        plain = self._pool(ranges(ends - lengths, lengths), offsets_of(lengths), ends > starts)
        if windows is None:
            passes = [_own_passes(np.minimum(ends - starts, length), ends) for length in self._lengths]
        else:
            passes = [shared_passes(windows.first_events(starts, ends, length), ends) for length in self._lengths]
        return replace(plain, sequences=tuple(self._read_sequences(*parts) for parts in passes))

    def read_events(self, positions: IntArray, offsets: IntArray) -> TowerInput:
        """Reads histories given as positions of single events [n], row after row, with the rows' offsets."""
        plain = self._pool(positions, offsets, np.diff(offsets) > 0)
        passes = []
        for length in self._lengths:
            at, bounds, last = _own_passes(np.minimum(np.diff(offsets), length), offsets[1:])
            passes.append((positions[at], bounds, last))
        return replace(plain, sequences=tuple(self._read_sequences(*parts) for parts in passes))

    def _pool(self, positions: IntArray, offsets: IntArray, has_events: npt.NDArray[np.bool_]) -> TowerInput:
        singles = np.zeros((len(has_events), 0), np.int64)
        is_empty = (~has_events).astype(np.float32) if self._features else None
        if not self._poolings:
            return TowerInput(singles, is_empty_history=is_empty)
        read = partial(self._view.read_column, selection=self._view.select(positions))
        times = read(EVENT_TIME_MS) if self._needs_times else None
        values = tuple(read(feature.name) for feature in self._features)
        events = HistoryEvents(values, offsets, times)
        return TowerInput(singles, tuple(bag for pooling in self._poolings for bag in pooling.pool(events)), is_empty)

    def _read_sequences(self, positions: IntArray, offsets: IntArray, last: IntArray) -> EventSequences:
        read = partial(self._view.read_column, selection=self._view.select(positions))
        values = tuple(read(feature.name).astype(np.int64, copy=False) for feature in self._encoded)
        return EventSequences(values, read(EVENT_TIME_MS) // MS_PER_SECOND, offsets, last).without_empty_events()

    def check_causal(self, starts: IntArray, ends: IntArray, as_of_ms: IntArray, *, where: str, remedy: str) -> None:
        """Raises a LeakError if a history contains an event at or after its row's timestamp [B]."""
        if not self._features:
            return
        filled = np.flatnonzero(ends > starts)
        last = self._view.read_column(EVENT_TIME_MS, self._view.select(ends[filled] - 1))
        late = np.flatnonzero(last >= as_of_ms[filled])
        if len(late):
            row = int(filled[late[0]])
            first = f"row {row}, timestamp {int(as_of_ms[row])} ms, last event at {int(last[late[0]])} ms"
            got = f"{len(late)} with events at or after it; first: {first}"
            raise LeakError(Fault(where, "histories that end strictly before their row's timestamp", got, remedy))


def _own_passes(lengths: IntArray, ends: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Makes a separate pass of each row's last events. Returns it in the form of `shared_passes`."""
    offsets = offsets_of(lengths)
    return ranges(ends - lengths, lengths), offsets, np.where(lengths > 0, offsets[1:] - 1, -1)


def feature_columns(features: Sequence[TowerFeature]) -> dict[str, pa.DataType]:
    """Returns the columns of features and their Arrow types: embedding indices, and the weights of weighted features."""
    indices = {feature.name: pa.list_(pa.int32()) if feature.is_multi else pa.int32() for feature in features}
    return indices | {feature_weights(feature.name): pa.list_(pa.float32()) for feature in features if feature.is_weighted}


def check_indices(view: TableView, features: Sequence[TowerFeature]) -> None:
    """Raises a SchemaError with one fault per feature that has an index outside its embedding table."""
    faults, remedy = [], "build the table with the feature configuration of this model"
    for feature in features:
        least, most = view.bounds(feature.name)
        if least < 0 or most >= feature.num_embeddings:
            where, expected = f"table {view.name}, column {feature.name}", f"0 .. {feature.num_embeddings - 1}"
            faults.append(Fault(where, expected, f"{least} .. {most}", remedy))
    SchemaError.raise_if(faults)


def merge_sides(features: Sequence[TowerFeature], sides: Mapping[TowerSide, TowerInput]) -> TowerInput:
    """Merges separately read sides of one tower into one input.

    Args:
        features: all features, in the order of the specification, which the result keeps. Each side must have the same order.
    """
    columns = {side: iter(inputs.singles.T) for side, inputs in sides.items()}
    bags = {side: iter(inputs.bags) for side, inputs in sides.items()}
    merged = np.empty((len(next(iter(sides.values()))), sum(not feature.is_multi for feature in features)), np.int64)  # [B, F]
    for position, feature in enumerate(feature for feature in features if not feature.is_multi):
        merged[:, position] = next(columns[feature.side])
    return TowerInput(merged, tuple(next(bags[feature.side]) for feature in features if feature.is_multi))


def add_missing_context(inputs: TowerInput, spec: TowerSpec) -> TowerInput:
    """Adds context features, all missing, so that user features alone become a full input."""
    context = spec.features_of(TowerSide.CONTEXT)
    empty = Bags(np.zeros(0, np.int64), np.zeros(len(inputs) + 1, np.int64), np.zeros(0, np.float32))
    singles = np.zeros((len(inputs), sum(not feature.is_multi for feature in context)), np.int64)
    missing = TowerInput(singles, tuple(empty for feature in context if feature.is_multi))
    features = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
    return merge_sides(features, {TowerSide.USER: inputs, TowerSide.CONTEXT: missing})


def select_rows(inputs: TowerInput, rows: IntArray) -> TowerInput:
    """Returns these rows of an input, in the given order. A row may occur several times."""
    is_empty = inputs.is_empty_history
    return TowerInput(
        inputs.singles[rows],
        tuple(_select_bag_rows(bag, rows) for bag in inputs.bags),
        None if is_empty is None else is_empty[rows],
        tuple(events.select_rows(rows) for events in inputs.sequences),
    )


def concatenate_rows(first: TowerInput, second: TowerInput) -> TowerInput:
    """Concatenates the rows of two inputs of a tower without history."""
    bags = tuple(_concatenate_bags(a, b) for a, b in zip(first.bags, second.bags, strict=True))
    return TowerInput(np.concatenate([first.singles, second.singles]), bags)


def hide_rows(inputs: TowerInput, is_hidden: npt.NDArray[np.bool_]) -> TowerInput:
    """Copies an input without history, and sets all features of the hidden rows to missing."""
    bags = tuple(_empty_rows(bag, is_hidden) for bag in inputs.bags)
    return TowerInput(np.where(is_hidden[:, None], 0, inputs.singles), bags)


def _concatenate_bags(first: Bags, second: Bags) -> Bags:
    return Bags(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        np.concatenate([first.weights, second.weights]),
    )


def _empty_rows(bag: Bags, is_hidden: npt.NDArray[np.bool_]) -> Bags:
    lengths = np.diff(bag.offsets)
    kept = np.repeat(~is_hidden, lengths)
    return Bags(bag.values[kept], offsets_of(np.where(is_hidden, 0, lengths)), bag.weights[kept])


def _select_bag_rows(bag: Bags, rows: IntArray) -> Bags:
    starts, ends = bag.offsets[rows], bag.offsets[rows + 1]
    positions = ranges(starts, ends - starts)
    return Bags(bag.values[positions], offsets_of(ends - starts), bag.weights[positions])
