"""Training data as views of Arrow tables: samples, their feature rows, history, users, items, hard negatives.

A memory-mapped table stays on disk. Memory holds one batch, one number per sample (the epoch's order), and one number per user
and item.

Letters: B samples of a batch, n events, U users, I items.

Belongs here: `TrainData`, which checks the tables once, and the visible part of each sample's history. Does not belong here:
forming batches (`batches`) and drawing negatives (`batch_negatives`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.event_sequences import SharedWindows
from dssm_assets.core.arrays.ragged import IntArray, Mask, bisect_ranges, offsets_of, ranges, row_blocks, row_of_value
from dssm_assets.core.arrays.table_view import TableView
from dssm_assets.core.columns import EVENT_TIME_MS, ITEM_ROW, USER_ROW, WEIGHT
from dssm_assets.core.config.model import History, HistoryCut, Model, Targets
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.models.samplers import SAMPLERS, HardEdges, NegativeSampler
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, TowerInput, hide_rows, merge_sides
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.samples.negatives import distribution_of, weights_of
from dssm_assets.core.samples.sample_tables import DAY, HISTORY_END, HISTORY_START, ITEM_INDEX, USER_INDEX

_BLOCK_ROWS = 1 << 18
_MAX_EVENTS = 4_000_000
"""Events of histories in memory at once. A single history may be longer."""
_KEYS = {
    ITEM_INDEX: pa.int32(),
    USER_INDEX: pa.int32(),
    HISTORY_END: pa.int64(),
    WEIGHT: pa.float32(),
    EVENT_TIME_MS: pa.int64(),
    DAY: pa.int32(),
    USER_ROW: pa.int32(),
    ITEM_ROW: pa.int32(),
}


@dataclass(frozen=True)
class HistoryRule:
    """Says which part of its user's history each sample of an epoch sees.

    Attributes:
        history: whether a sample sees all events before its own event, before its day, or on other items.
        user_ends: end of each user's visible events, for `History.LEAVE_ONE_OUT` [U].
        window_shifts: shift of each user for `SharedWindows` [U]. None: rows share no events.
    """

    history: History
    user_ends: IntArray
    window_shifts: IntArray | None = None


class TrainData:
    """The samples, histories and items of one window, read by row number.

    Args:
        spec: names the feature columns.
        samples: one row per positive sample, day by day: item_index int32, user_index int32 (-1: no history at all), history_end
            int64, weight float32, event_time_ms int64, day int32 (0 the oldest), user_row and item_row int32, and the embedding
            indices of context features.
        user_rows: embedding indices of user features; the row number is user_row.
        item_rows: embedding indices of item features at the time of the samples; the row number is item_row.
        history: all users' positive events by (user, time): item_index int32 (-1: not in the corpus), event_time_ms int64 and the
            embedding indices of the sub-features.
        users: history_start and history_end int64; the row number is user_index.
        items: weight float64 and the embedding indices of item features; the row number is item_index. The schema may name the
            distribution of the weights.
        hard_negatives: user_index, item_index and day int32 of items shown to users without interaction. None: not needed.

    Raises:
        SchemaError: there is no sample, a column is missing, has another type or nulls, or an index has no embedding.
        LeakError: a sample's history contains its own event or a later one.
    """

    def __init__(
        self,
        spec: TowerSpec,
        *,
        samples: pa.Table,
        user_rows: pa.Table,
        item_rows: pa.Table,
        history: pa.Table,
        users: pa.Table,
        items: pa.Table,
        hard_negatives: pa.Table | None = None,
    ) -> None:
        self.spec = spec
        self.num_samples: int = samples.num_rows
        self.num_items: int = items.num_rows
        if not self.num_samples:
            raise SchemaError(Fault("table samples", "at least one sample", "0 rows", "choose a window with positive events"))
        self.keys = TableView(samples, "samples", _KEYS)
        self._context = SideReader(samples, "samples", spec.features_of(TowerSide.CONTEXT))
        self.sample_users = SideReader(user_rows, "user_rows", spec.features_of(TowerSide.USER))
        self.sample_items = SideReader(item_rows, "item_rows", spec.features_of(TowerSide.ITEM))
        self.items = SideReader(items, "items", spec.features_of(TowerSide.ITEM))
        self._interactions = TableView(history, "history", {ITEM_INDEX: pa.int32(), EVENT_TIME_MS: pa.int64()})
        self.user_starts: IntArray = users.column(HISTORY_START).to_numpy()
        self._user_ends: IntArray = users.column(HISTORY_END).to_numpy()
        self.history = HistoryReader(history, spec)
        for rows in row_blocks(self.num_samples, _BLOCK_ROWS):
            keys = self.read_keys(rows)
            bounds, where = self._history_bounds(keys), "table samples, column history_end"
            self.history.check_causal(*bounds, keys[EVENT_TIME_MS], where=where, remedy="materialize train_samples again")
        self._edges = None if hard_negatives is None else read_hard_edges(hard_negatives, users.num_rows)
        self._item_weights: npt.NDArray[np.float64] = items.column(WEIGHT).to_numpy()
        self._weight_distribution = distribution_of(items.schema)

    @cached_property
    def num_days(self) -> int:
        """Returns the number of days from the window's first day to the last day with a sample, both included."""
        return 1 + self.keys.bounds(DAY)[1]

    def item_counts(self, end_day: int) -> IntArray:
        """Counts each item's samples before a day [I]."""
        counts = np.zeros(self.num_items, np.int64)
        for days, items in self.keys.blocks(DAY, ITEM_INDEX):
            counts += np.bincount(items[days < end_day], minlength=self.num_items)
        return counts

    def item_weights(self, end_day: int) -> npt.NDArray[np.float64]:
        """Returns the items' sampling weights [I], computed from the interactions before `end_day`.

        If the table's schema has no distribution to compute them with, the weights are the same for every day.
        """
        if end_day >= self.num_days or self._weight_distribution is None:
            return self._item_weights
        return weights_of(self.item_counts(end_day), self._weight_distribution)

    def sampler(self, model: Model, end_day: int) -> NegativeSampler:
        """Returns the configured sampler. It uses only interactions before `end_day`."""
        if model.has_hard_negatives and self._edges is None:
            where, remedy = "training data, hard_negatives.arrow", "materialize train_samples again with this model section"
            raise ConfigError(Fault(where, f"the file that sampler {model.sampler} draws from", "no such file", remedy))
        return SAMPLERS[model.sampler](model, self.item_weights(end_day), self._edges or HardEdges.empty())

    def rows_of_days(self, first: int, end: int, *, min_history: int = 0, targets: Targets = Targets.ALL) -> IntArray:
        """Returns the samples of days first .. end - 1 that are targets and have at least `min_history` earlier events, in order."""
        kept, begin = [], 0
        for day, user_index, ends in self.keys.blocks(DAY, USER_INDEX, HISTORY_END):
            starts, stops = self._history_bounds({USER_INDEX: user_index, HISTORY_END: ends})
            is_kept = (day >= first) & (day < end) & (stops - starts >= min_history)
            if targets is Targets.NEW:
                is_kept &= self._is_new[begin : begin + len(day)]
            kept.append(begin + np.flatnonzero(is_kept))
            begin += len(day)
        return np.concatenate(kept)

    @cached_property
    def _is_new(self) -> Mask:
        """Marks samples with an item that is new to their user, bool [samples]."""
        found = [np.zeros(0, np.bool_)]
        for user_index, ends, items in self.keys.blocks(USER_INDEX, HISTORY_END, ITEM_INDEX):
            bounds = self._history_bounds({USER_INDEX: user_index, HISTORY_END: ends})
            found.append(find_new_items(*bounds, items, self._items_at))
        return np.concatenate(found)

    def user_ends(self, before_day: int | None = None) -> IntArray:
        """Returns the end of each user's events before the first sample of a day or later days [U]. None: all events count."""
        if before_day is None or before_day >= self.num_days:
            return self._user_ends
        later = (times[days >= before_day] for days, times in self.keys.blocks(DAY, EVENT_TIME_MS))
        before_ms = min(int(times.min()) for times in later if len(times))

        def is_before(events: IntArray, _: IntArray) -> Mask:
            return self._interactions.read_column(EVENT_TIME_MS, self._interactions.select(events)) < before_ms

        return bisect_ranges(self.user_starts, self._user_ends, is_before)

    def read_keys(self, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Returns the key columns of these samples: item_index, user_index, user_row, item_row, ..."""
        selection = self.keys.select(rows)
        return {name: self.keys.read_column(name, selection) for name in _KEYS}

    def read_key(self, column: str, rows: IntArray) -> npt.NDArray[Any]:
        """Returns one key column of these samples."""
        return self.keys.read_column(column, self.keys.select(rows))

    def read_user_side(
        self,
        rows: IntArray,
        keys: dict[str, npt.NDArray[Any]],
        rule: HistoryRule | None = None,
        kept_frac: npt.NDArray[np.float64] | None = None,
        is_hidden: Mask | None = None,
    ) -> TowerInput:
        """Returns the user tower's input for these samples: user features, context features and histories.

        Args:
            rows: the samples.
            keys: their keys, from `read_keys`.
            rule: the visible part of each history. None: all events up to history_end.
            kept_frac: from `draw_cuts`. None: no history is cut.
            is_hidden: marks samples that get no context features [B]. None: all samples get them.
        """
        context = self._context.read(rows)
        if is_hidden is not None:
            context = hide_rows(context, is_hidden)
        sides = {TowerSide.USER: self.sample_users.read(keys[USER_ROW]), TowerSide.CONTEXT: context}
        features = merge_sides(self.spec.features_of(TowerSide.USER, TowerSide.CONTEXT), sides)
        return features.with_history(self._read_history(keys, rule or HistoryRule(History.EVENT, self._user_ends), kept_frac))

    def item_keys(self, features: Sequence[str]) -> IntArray:
        """Returns the embedding indices of single-valued item features for the whole corpus [I, F]. Reads them block by block."""
        singles = [feature.name for feature in self.spec.features_of(TowerSide.ITEM) if not feature.is_multi]
        places = [singles.index(name) for name in features]
        return np.concatenate([self.items.read(rows).singles[:, places] for rows in row_blocks(self.num_items, _BLOCK_ROWS)])

    def known_items(self, user_index: npt.NDArray[Any], user_ends: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the items of these users' events before `user_ends`, user by user [n], and the number of each user's events.

        An item outside the corpus is -1. User -1 has no events.
        """
        lengths = np.zeros(len(user_index), np.int64)
        known = user_index >= 0
        starts, ends = (bounds[user_index[known]] for bounds in (self.user_starts, user_ends))
        lengths[known] = ends - starts
        return self._items_at(ranges(starts, ends - starts)).astype(np.int64), lengths

    def _read_history(
        self, keys: dict[str, npt.NDArray[Any]], rule: HistoryRule, kept_frac: npt.NDArray[np.float64] | None
    ) -> TowerInput:
        starts, ends = self._history_bounds(keys)
        if rule.history is not History.LEAVE_ONE_OUT:
            if kept_frac is not None:
                ends = starts + np.ceil((ends - starts) * kept_frac).astype(np.int64)
            return self.history.read(starts, ends, self.windows(keys, rule.window_shifts))
        known = np.flatnonzero(keys[USER_INDEX] >= 0)
        ends[known] = rule.user_ends[keys[USER_INDEX][known]]
        positions, offsets = without_own_item(starts, ends, keys[ITEM_INDEX], self._items_at)
        if kept_frac is not None:
            lengths = np.ceil(np.diff(offsets) * kept_frac).astype(np.int64)
            positions, offsets = positions[ranges(offsets[:-1], lengths)], offsets_of(lengths)
        return self.history.read_events(positions, offsets)

    def windows(self, keys: Mapping[str, npt.NDArray[Any]], shifts: IntArray | None) -> SharedWindows | None:
        """Returns which samples share a pass of the encoder. `shifts`: of all users [U]; None or empty: no samples do."""
        if shifts is None or not len(shifts):
            return None
        user = np.maximum(keys[USER_INDEX], 0)
        return SharedWindows(self._user_ends[user], shifts[user])

    def window_numbers(self, keys: Mapping[str, npt.NDArray[Any]], shifts: IntArray) -> IntArray:
        """Returns the number of each sample's window, from 0 [B]. A sample without history gets its own window."""
        length = max(view.pooling.length for view in self.spec.sequence_views)
        starts, ends = self._history_bounds(keys)
        windows = self.windows(keys, shifts)
        firsts = starts if windows is None else windows.first_events(starts, ends, length)
        distinct = np.where(ends > starts, firsts, -1 - np.arange(len(ends)))
        return np.unique(distinct, return_inverse=True)[1].astype(np.int64).reshape(-1)

    def _items_at(self, positions: IntArray) -> npt.NDArray[np.int32]:
        return self._interactions.read_column(ITEM_INDEX, self._interactions.select(positions))

    def _history_bounds(self, keys: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
        user_index, known = keys[USER_INDEX], keys[USER_INDEX] >= 0
        starts = np.zeros(len(user_index), np.int64)
        starts[known] = self.user_starts[user_index[known]]
        return starts, np.where(known, keys[HISTORY_END], 0)


def find_new_items(
    starts: IntArray, ends: IntArray, items: npt.NDArray[Any], items_at: Callable[[IntArray], npt.NDArray[np.int32]]
) -> Mask:
    """Marks samples with an item that none of the events start .. end - 1 of their history has, bool [B].

    By hand: the events at positions 0 to 3 have items 7, 8, 7, 9. With a history of positions 0 and 1, items 7 and 8 are known
    and 9 is new. With a history of position 0 alone, 8 is new, too.

    Args:
        starts: first event of each sample's user [B].
        ends: end of each sample's history [B].
        items: item of each sample [B].
        items_at: returns the items of events, given by position.
    """
    is_new = np.ones(len(items), dtype=bool)
    with_history = np.flatnonzero(ends > starts)
    users, user = np.unique(starts[with_history], return_inverse=True)  # a start belongs to one user
    user_ends = np.zeros(len(users), np.int64)
    np.maximum.at(user_ends, user, ends[with_history])
    order = np.argsort(user, kind="stable")
    block = np.cumsum(user_ends - users) // _MAX_EVENTS
    edges = [0, *(1 + np.flatnonzero(np.diff(block))).tolist(), len(users)]
    for first, stop in itertools.pairwise(edges):
        rows = with_history[order[np.searchsorted(user, first, sorter=order) : np.searchsorted(user, stop, sorter=order)]]
        lengths = user_ends[first:stop] - users[first:stop]
        positions = ranges(users[first:stop], lengths)
        of_events = items_at(positions).astype(np.int64)
        width = 2 + max(int(of_events.max(initial=0)), int(items[rows].max(initial=0)))
        pairs, earliest = np.unique(np.repeat(np.arange(stop - first), lengths) * width + of_events + 1, return_index=True)
        wanted = np.searchsorted(users[first:stop], starts[rows]) * width + items[rows] + 1
        nearest = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        is_new[rows] = (pairs[nearest] != wanted) | (positions[earliest[nearest]] >= ends[rows])
    return is_new


def draw_cuts(count: int, cut: HistoryCut, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws the fraction of events that each history keeps, oldest first [n]; 1 if it is not cut.

    The kept number is rounded up. Example: with min_length_frac 0.75, a history of 8 events keeps 7 or 8.
    """
    if not cut.sample_frac:
        return np.ones(count)
    is_cut = rng.random(count) < cut.sample_frac
    return np.where(is_cut, rng.uniform(cut.min_length_frac, 1.0, count), 1.0)


def without_own_item(
    starts: IntArray, ends: IntArray, own_items: IntArray, items_at: Callable[[IntArray], npt.NDArray[np.int32]]
) -> tuple[IntArray, IntArray]:
    """Leaves out the events on each row's own item. Returns the positions of its other events start .. end - 1 [n], and offsets.

    `items_at` returns the items of events, given by position.
    """
    positions = ranges(starts, ends - starts)
    row = row_of_value(offsets_of(ends - starts))
    is_other = items_at(positions) != own_items[row]
    return positions[is_other], offsets_of(np.bincount(row[is_other], minlength=len(starts)))


def read_hard_edges(table: pa.Table, num_users: int) -> HardEdges:
    """Returns the edges of hard_negatives.arrow: user_index, item_index and day int32, sorted by user and item."""
    users, items, days = (table.column(name).to_numpy() for name in (USER_INDEX, ITEM_INDEX, DAY))
    return HardEdges(offsets_of(np.bincount(users, minlength=num_users)), items, days)
