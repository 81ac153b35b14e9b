"""The user's past as the user tower sees it: the last L events before a position, as a weighted mean per sub-feature.

Belongs here: `HistoryReader`. Does not belong here: where a sample's history ends (train_samples decides that).

A history is a slice of one table sorted by (user, time): the events start .. end - 1. It is gathered ragged, so a
short history costs what it holds and nothing is padded.

Weights: with a half-life of h days an event that is a days old counts 2 ** (-a / h) before the weights are divided
by their sum. Ages may be taken from any moment, since moving it multiplies all weights of a row by one factor,
which the division removes; the row's newest event is used, which cannot underflow to a row of zeros. Training
(ages from the sample's event) and inference (ages from the evaluation day) therefore agree.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.errors import Fault, LeakError, SchemaError
from dssm_assets.core.models.bags import Bags, IntArray, mean_bags, ragged_positions
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.models.tower_input import check_indices, feature_columns
from dssm_assets.core.models.tower_spec import TowerSpec

MS_PER_DAY = 86_400_000
_BLOCK_ROWS = 1 << 18


class HistoryReader:
    """Gathers histories from the table of all users' positive events."""

    def __init__(self, table: pa.Table, spec: TowerSpec) -> None:
        self._features = spec.sequences
        self._length = spec.history_length
        self._half_life_days = spec.history_half_life_days
        columns = {EVENT_TIME_MS: pa.int64(), **feature_columns(self._features)} if self._features else {}
        self._view = TableView(table, "history", columns)
        self.num_rows: int = table.num_rows
        check_indices(self._view, "history", self._features)

    def read(self, starts: IntArray, ends: IntArray) -> tuple[tuple[Bags, ...], npt.NDArray[np.float32] | None]:
        """Returns one bag per sub-feature and the rows that have no history [B] (None without sub-features)."""
        if not self._features:
            return (), None
        positions, offsets = ragged_positions(np.maximum(starts, ends - self._length), ends)
        selection = self._view.select(positions)
        importance = self._importance(self._view.take(EVENT_TIME_MS, selection), offsets) if self._half_life_days else None
        bags = tuple(mean_bags(self._view.take(f.name, selection), offsets, importance) for f in self._features)
        return bags, (ends <= starts).astype(np.float32)

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

    def _importance(self, times: npt.NDArray[np.int64], offsets: IntArray) -> npt.NDArray[np.float64]:
        lengths = np.diff(offsets)
        filled = lengths > 0
        newest = np.repeat(times[offsets[1:][filled] - 1], lengths[filled])
        age_days = (newest - times) / MS_PER_DAY
        # The floor keeps an ancient event's weight above zero: a row whose newest event has no value still has a mean.
        return np.asarray(np.exp2(-np.minimum(age_days / float(self._half_life_days or 1.0), 900.0)))
