"""Training data as views of Arrow tables: samples, the feature rows they point to, history, users, items.

Belongs here: `TrainData`, the border where the tables are checked once. Does not belong here: which rows form a batch
and what is drawn for it (`batches`).

Nothing is copied: a memory-mapped table stays on disk, and memory is bounded by one batch, one number per sample (the
epoch's order) and one number per user and item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import EVENT_TIME_MS, ITEM_ROW, USER_ROW, WEIGHT
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.bags import IntArray, ragged_positions
from dssm_assets.core.models.history import HistoryReader
from dssm_assets.core.models.row_gather import RowGather
from dssm_assets.core.models.samplers.weighted import WeightedSampler
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.models.tower_input import SideReader, TowerInput, side_by_side
from dssm_assets.core.models.tower_spec import Side, TowerSpec

ITEM_INDEX = "item_index"
USER_INDEX = "user_index"
HISTORY_START = "history_start"
HISTORY_END = "history_end"

_KEYS = {
    ITEM_INDEX: pa.int32(),
    USER_INDEX: pa.int32(),
    HISTORY_END: pa.int64(),
    WEIGHT: pa.float32(),
    EVENT_TIME_MS: pa.int64(),
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
        samples: one row per positive sample: item_index int32, user_index int32 (-1: no history at all), history_end
            int64, weight float32, event_time_ms int64, user_row and item_row int32, and the embedding indices of context
            features.
        user_rows: the embedding indices of user features, row number = user_row.
        item_rows: the embedding indices of item features as of the samples, row number = item_row.
        history: all users' positive events by (user, time): item_index int32 (-1: not in the corpus), event_time_ms
            int64 and the embedding indices of the sub-features.
        users: history_start and history_end int64, row number = user_index.
        items: weight float64 and the embedding indices of item features of the corpus, row number = item_index.

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
    ) -> None:
        self.spec = spec
        self.num_samples: int = samples.num_rows
        self.num_items: int = items.num_rows
        self._keys = TableView(samples, "samples", _KEYS)
        self._read_keys = RowGather(samples, flat=list(_KEYS))
        self._context = SideReader(samples, "samples", spec.of(Side.CONTEXT))
        self._sample_users = SideReader(user_rows, "user_rows", spec.of(Side.USER))
        self._sample_items = SideReader(item_rows, "item_rows", spec.of(Side.ITEM))
        self._items = SideReader(items, "items", spec.of(Side.ITEM))
        self._history = HistoryReader(history, spec)
        self._history_items = TableView(history, "history", {ITEM_INDEX: pa.int32()})
        bounds = TableView(users, "users", {HISTORY_START: pa.int64(), HISTORY_END: pa.int64()})
        self._starts, self._ends = (_whole(bounds, name) for name in (HISTORY_START, HISTORY_END))
        self._history.check_bounds(self._starts, self._ends, "table users")
        # Without user features there is nothing to point to, and nothing is read.
        pointed = {USER_ROW: user_rows.num_rows if spec.of(Side.USER) else 1, ITEM_ROW: item_rows.num_rows}
        self._check_samples(pointed)
        weights = _whole(TableView(items, "items", {WEIGHT: pa.float64()}), WEIGHT)
        self.sampler = WeightedSampler(weights.astype(np.float64))
        counts = sum(np.bincount(block, minlength=self.num_items) for block in self._keys.blocks(ITEM_INDEX))
        self.item_share: npt.NDArray[np.float64] = np.asarray(counts / self.num_samples)
        self.context_singles, self.context_bags = _context_places(spec)

    def read_keys(self, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Returns the columns of these samples that are no features: item_index, user_index, user_row, item_row, ..."""
        return self._read_keys.take_each(self._read_keys.select(rows))

    def read_user_side(self, rows: IntArray, keys: dict[str, npt.NDArray[Any]]) -> TowerInput:
        """Returns the user tower's input of these samples: user and context features and the history of each."""
        sides = {Side.USER: self._sample_users.values(keys[USER_ROW]), Side.CONTEXT: self._context.values(rows)}
        features = side_by_side(self.spec.of(Side.USER, Side.CONTEXT), sides)
        bags, is_empty = self._history.read(*self._history_bounds(keys))
        return TowerInput(features.singles, features.bags + bags, is_empty)

    def read_sample_items(self, rows: IntArray) -> TowerInput:
        """Returns the item tower's input of these samples' own items, as of the sample."""
        return self._sample_items.read(self._read_keys.take(ITEM_ROW, self._read_keys.select(rows)))

    def read_items(self, item_index: IntArray) -> TowerInput:
        """Returns the item tower's input of these items of the corpus."""
        return self._items.read(item_index)

    def known_items(self, user_index: npt.NDArray[Any]) -> KnownItems:
        """Returns the corpus items that each of these users is known to have taken; none for -1."""
        lengths = np.zeros(len(user_index), np.int64)
        known = user_index >= 0
        starts, ends = self._starts[user_index[known]], self._ends[user_index[known]]
        lengths[known] = ends - starts
        positions, _ = ragged_positions(starts, ends)
        items = self._history_items.take(ITEM_INDEX, self._history_items.select(positions))
        return KnownItems(items.astype(np.int64), lengths)

    def _history_bounds(self, keys: dict[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
        user_index, ends = keys[USER_INDEX], keys[HISTORY_END]
        known = user_index >= 0
        if not len(self._starts):
            return np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
        starts = self._starts[np.where(known, user_index, 0)]
        return np.where(known, starts, 0), np.where(known, ends, 0)

    def _check_samples(self, pointed: dict[str, int]) -> None:
        if not self.num_samples:
            raise SchemaError(Fault("table samples", "at least one sample", "0 rows", "choose a window with positive events"))
        faults = _range_faults(self._keys, ITEM_INDEX, 0, self.num_items)
        faults += _range_faults(self._keys, USER_INDEX, -1, len(self._starts))
        for column, row_count in pointed.items():
            faults += _range_faults(self._keys, column, 0, row_count)
        weights = list(self._keys.blocks(WEIGHT))
        if not all(bool((np.isfinite(block) & (block > 0)).all()) for block in weights):
            faults.append(
                Fault("table samples, column weight", "finite weights above 0", "others", "drop or mend those samples")
            )
        if faults:
            raise SchemaError(faults)
        for begin in range(0, self.num_samples, 1 << 18):
            keys = self.read_keys(np.arange(begin, min(begin + (1 << 18), self.num_samples), dtype=np.int64))
            starts, ends = self._history_bounds(keys)
            self._history.check_bounds(starts, ends, "table samples, column history_end")
            self._check_owner(keys, ends)
            self._history.check_causal(starts, ends, keys[EVENT_TIME_MS], "table samples, column history_end")

    def _check_owner(self, keys: dict[str, npt.NDArray[Any]], ends: IntArray) -> None:
        if not len(self._ends):
            return
        known = keys[USER_INDEX] >= 0
        beyond = known & (ends > self._ends[np.where(known, keys[USER_INDEX], 0)])
        if beyond.any():
            got = f"{int(beyond.sum())} that reach into the next user's"
            where = "table samples, column history_end"
            raise SchemaError(Fault(where, "histories inside the user's own", got, "write samples, users and history together"))


def _whole(view: TableView, column: str) -> npt.NDArray[Any]:
    blocks = list(view.blocks(column))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.int64), *blocks])


def _range_faults(view: TableView, column: str, low: int, end: int) -> list[Fault]:
    blocks = list(view.blocks(column))
    least, most = min(int(block.min()) for block in blocks), max(int(block.max()) for block in blocks)
    if least >= low and most < end:
        return []
    remedy = "write samples, user_rows, item_rows, users and items together"
    return [Fault(f"table samples, column {column}", f"{low} .. {end - 1}", f"{least} .. {most}", remedy)]


def _context_places(spec: TowerSpec) -> tuple[list[int], list[int]]:
    """Returns where the context features lie among the user tower's single-valued and multi-valued features."""
    features = spec.of(Side.USER, Side.CONTEXT)
    singles = [f for f in features if not f.is_multi]
    multis = [f for f in features if f.is_multi]
    return (
        [k for k, f in enumerate(singles) if f.side is Side.CONTEXT],
        [k for k, f in enumerate(multis) if f.side is Side.CONTEXT],
    )
