"""The user's past as the user tower sees it: the last events before a position, as bags of every sub-feature.

Belongs here: `HistoryReader`. Does not belong here: where a sample's history ends (train_samples decides that) and what a
pooling makes of the events (`history_pooling`).

A history is a slice of one table sorted by (user, time): the events start .. end - 1. It is gathered ragged, so a
short history costs what it holds and nothing is padded.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.errors import Fault, LeakError, SchemaError
from dssm_assets.core.models.bags import Bags, IntArray, ragged_positions
from dssm_assets.core.models.history_pooling import Past, has_ages, pooled, reach
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.models.tower_input import check_indices, feature_columns
from dssm_assets.core.models.tower_spec import TowerSpec

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
        return self.read_events(*ragged_positions(np.maximum(starts, ends - self._reach), ends))

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
