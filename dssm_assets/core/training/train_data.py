"""Training data as views of Arrow tables: samples, the feature rows they point to, history, users, items, hard negatives.

Belongs here: `TrainData`, the border where the tables are checked once. Does not belong here: which rows form a batch
and what is drawn for it (`batches`), which part of the past a sample sees (`history_cut`).

Nothing is copied: a memory-mapped table stays on disk, and memory is bounded by one batch, one number per sample (the
epoch's order) and one number per user and item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import EVENT_TIME_MS, ITEM_ROW, USER_ROW, WEIGHT
from dssm_assets.core.model_config import History, Model
from dssm_assets.core.models.bags import Bags, IntArray, ragged_positions
from dssm_assets.core.models.history import HistoryReader
from dssm_assets.core.models.row_gather import RowGather
from dssm_assets.core.models.samplers.negative_sampler import NegativeSampler
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.models.tower_feature import Side
from dssm_assets.core.models.tower_input import SideReader, TowerInput, side_by_side
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.samples.specs import DAY, HISTORY_END, HISTORY_START, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.corpus_samplers import CorpusSamplers
from dssm_assets.core.training.hard_table import hard_edges
from dssm_assets.core.training.history_cut import SamplePast, events_of_others, kept_lengths, oldest
from dssm_assets.core.training.sample_checks import check_owner, check_samples, whole
from dssm_assets.core.training.validation_set import ValidationSet, validation_set

_BLOCK_ROWS = 1 << 18
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
class KnownItems:
    """Item indices of several users one after another (-1: not in the corpus), and how many each user has."""

    items: IntArray
    lengths: IntArray


class TrainData:
    """The samples, histories and items of one window, read by row number.

    Args:
        spec: names the feature columns.
        samples: one row per positive sample, day by day: item_index int32, user_index int32 (-1: no history at all),
            history_end int64, weight float32, event_time_ms int64, day int32 (0 the oldest), user_row and item_row int32,
            and the embedding indices of context features.
        user_rows: the embedding indices of user features, row number = user_row.
        item_rows: the embedding indices of item features as of the samples, row number = item_row.
        history: all users' positive events by (user, time): item_index int32 (-1: not in the corpus), event_time_ms
            int64 and the embedding indices of the sub-features.
        users: history_start and history_end int64, row number = user_index.
        items: weight float64 and the embedding indices of item features, row number = item_index; its schema may tell the law of
            the weights.
        hard_negatives: user_index, item_index and day int32, what users were shown and did not take; None: not asked for.

    Raises:
        SchemaError: a column is missing or of another type, has nulls, or points outside of what it refers to.
        LeakError: a sample's history reaches its own event.
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
        self.keys = TableView(samples, "samples", _KEYS)
        self._read_keys = RowGather(samples, flat=list(_KEYS))
        self._context = SideReader(samples, "samples", spec.of(Side.CONTEXT))
        self.sample_users = SideReader(user_rows, "user_rows", spec.of(Side.USER))
        self.sample_items = SideReader(item_rows, "item_rows", spec.of(Side.ITEM))
        self._items = SideReader(items, "items", spec.of(Side.ITEM))
        self.history = HistoryReader(history, spec)
        self._taken = TableView(history, "history", {ITEM_INDEX: pa.int32(), EVENT_TIME_MS: pa.int64()})
        bounds = TableView(users, "users", {HISTORY_START: pa.int64(), HISTORY_END: pa.int64()})
        self.user_starts, self._user_ends = (whole(bounds, name) for name in (HISTORY_START, HISTORY_END))
        self.history.check_bounds(self.user_starts, self._user_ends, "table users")
        # Without user features there is nothing to point to, and nothing is read.
        pointed = {ITEM_INDEX: (0, self.num_items), USER_INDEX: (-1, users.num_rows)}
        pointed |= {USER_ROW: (0, user_rows.num_rows if spec.of(Side.USER) else 1), ITEM_ROW: (0, item_rows.num_rows)}
        check_samples(self.keys, pointed, DAY)
        self._check_histories()
        sizes = {"num_users": users.num_rows, "num_items": self.num_items}
        edges = None if hard_negatives is None else hard_edges(hard_negatives, **sizes)
        self._samplers = CorpusSamplers(items, edges, self.item_counts)

    @cached_property
    def num_days(self) -> int:
        """Days of the window up to the last that has a sample."""
        return 1 + max(int(block.max()) for block in self.keys.blocks(DAY))

    @cached_property
    def item_share(self) -> npt.NDArray[np.float64]:
        """How often each item is that of a sample, among all samples [I]."""
        return np.asarray(self.item_counts(self.num_days) / self.num_samples)

    def item_counts(self, end_day: int) -> IntArray:
        """Returns how many samples each item has on the days before this one [I]."""
        counts = np.zeros(self.num_items, np.int64)
        for days, items in zip(self.keys.blocks(DAY), self.keys.blocks(ITEM_INDEX), strict=True):
            counts += np.bincount(items[days < end_day], minlength=self.num_items)
        return counts

    def sampler(self, model: Model, end_day: int | None = None) -> NegativeSampler:
        """Returns the sampler that the model section names, by what was taken on the days before `end_day` (None: on all).

        Raises:
            ConfigError: it draws hard negatives and the data were made without.
        """
        return self._samplers.of(model, end_day if end_day is not None and end_day < self.num_days else None)

    def rows_of_days(self, first: int, end: int, *, min_history: int = 0) -> IntArray:
        """Returns the samples of the days first .. end - 1 whose users took at least so much before, in their order."""
        kept, begin = [], 0
        columns = (self.keys.blocks(name) for name in (DAY, USER_INDEX, HISTORY_END))
        for day, user_index, ends in zip(*columns, strict=True):
            is_kept = (day >= first) & (day < end)
            if min_history:
                starts, stops = self._history_bounds({USER_INDEX: user_index, HISTORY_END: ends})
                is_kept &= stops - starts >= min_history
            kept.append(begin + np.flatnonzero(is_kept))
            begin += len(day)
        return np.concatenate(kept)

    def first_time_ms(self, day: int) -> int:
        """Returns when the first event happened that a sample of this day or a later one stands for; there is one."""
        columns = (self.keys.blocks(name) for name in (DAY, EVENT_TIME_MS))
        return min(int(times[days >= day].min()) for days, times in zip(*columns, strict=True) if (days >= day).any())

    def user_ends(self, before_ms: int | None = None) -> IntArray:
        """Returns where each user's events end [U] that are strictly before a moment; None: all of them."""
        if before_ms is None:
            return self._user_ends
        low, high = self.user_starts.copy(), self._user_ends.copy()
        while len(still := np.flatnonzero(low < high)):
            middle = low[still] + (high[still] - low[still]) // 2
            is_before = self._taken.take(EVENT_TIME_MS, self._taken.select(middle)) < before_ms
            low[still[is_before]] = middle[is_before] + 1
            high[still[~is_before]] = middle[~is_before]
        return low

    def validation_set(self, first_day: int) -> ValidationSet:
        """Returns what towers are scored on that were fitted on the days before `first_day`."""
        return validation_set(self, first_day)

    def read_keys(self, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Returns the columns of these samples that are no features: item_index, user_index, user_row, item_row, ..."""
        return self._read_keys.take_each(self._read_keys.select(rows))

    def read_key(self, column: str, rows: IntArray) -> npt.NDArray[Any]:
        """Returns one of these columns."""
        return self._read_keys.take(column, self._read_keys.select(rows))

    def read_user_side(
        self,
        rows: IntArray,
        keys: dict[str, npt.NDArray[Any]],
        past: SamplePast | None = None,
        rng: np.random.Generator | None = None,
    ) -> TowerInput:
        """Returns the user tower's input of these samples: user and context features and the history of each.

        Args:
            rows: the samples.
            keys: what `read_keys` returns of them.
            past: which part of its past a sample sees; None: all that its history_end lets it see.
            rng: decides which pasts are cut; may be None where none is.
        """
        sides = {Side.USER: self.sample_users.values(keys[USER_ROW]), Side.CONTEXT: self._context.values(rows)}
        features = side_by_side(self.spec.of(Side.USER, Side.CONTEXT), sides)
        bags, is_empty = self._read_past(keys, past or SamplePast(), rng)
        return TowerInput(features.singles, features.bags + bags, is_empty)

    def read_sample_items(self, rows: IntArray) -> TowerInput:
        """Returns the item tower's input of these samples' own items, as of the sample."""
        return self.sample_items.read(self.read_key(ITEM_ROW, rows))

    def read_items(self, item_index: IntArray) -> TowerInput:
        """Returns the item tower's input of these items of the corpus."""
        return self._items.read(item_index)

    def known_items(self, user_index: npt.NDArray[Any], user_ends: IntArray | None = None) -> KnownItems:
        """Returns the corpus items that each of these users is known to have taken, by `user_ends`; none for -1."""
        lengths = np.zeros(len(user_index), np.int64)
        known = user_index >= 0
        ends = (self._user_ends if user_ends is None else user_ends)[user_index[known]]
        starts = self.user_starts[user_index[known]]
        lengths[known] = ends - starts
        return KnownItems(self._items_at(ragged_positions(starts, ends)[0]).astype(np.int64), lengths)

    def _read_past(
        self, keys: dict[str, npt.NDArray[Any]], past: SamplePast, rng: np.random.Generator | None
    ) -> tuple[tuple[Bags, ...], npt.NDArray[np.float32] | None]:
        starts, ends = self._history_bounds(keys)
        if past.history is not History.OTHERS:
            if rng is not None and past.cut.sample_frac:
                ends = starts + kept_lengths(ends - starts, past.cut, rng)
            return self.history.read(starts, ends)
        known = np.flatnonzero(keys[USER_INDEX] >= 0)
        ends[known] = (self._user_ends if past.user_ends is None else past.user_ends)[keys[USER_INDEX][known]]
        positions, offsets = events_of_others(starts, ends, keys[ITEM_INDEX], self._items_at)
        if rng is not None and past.cut.sample_frac:
            positions, offsets = oldest(positions, offsets, kept_lengths(np.diff(offsets), past.cut, rng))
        return self.history.read_events(positions, offsets)

    def _items_at(self, positions: IntArray) -> npt.NDArray[np.int32]:
        return self._taken.take(ITEM_INDEX, self._taken.select(positions))

    def _history_bounds(self, keys: dict[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
        user_index, ends = keys[USER_INDEX], keys[HISTORY_END]
        known = user_index >= 0
        if not len(self.user_starts):
            return np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
        starts = self.user_starts[np.where(known, user_index, 0)]
        return np.where(known, starts, 0), np.where(known, ends, 0)

    def _check_histories(self) -> None:
        for begin in range(0, self.num_samples, _BLOCK_ROWS):
            keys = self.read_keys(np.arange(begin, min(begin + _BLOCK_ROWS, self.num_samples), dtype=np.int64))
            starts, ends = self._history_bounds(keys)
            self.history.check_bounds(starts, ends, "table samples, column history_end")
            check_owner(keys[USER_INDEX], ends, self._user_ends)
            self.history.check_causal(starts, ends, keys[EVENT_TIME_MS], "table samples, column history_end")
