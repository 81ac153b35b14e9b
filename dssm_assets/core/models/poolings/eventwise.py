"""The history for a tower that reads its events one by one: `attention_pooling.py` and `sequence_encoder.py` in `core/models`."""

from __future__ import annotations

import numpy as np

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import offsets_of, row_of_value
from dssm_assets.core.models.poolings.history_pooling import HistoryEvents, HistoryPooling


class EventwisePooling(HistoryPooling):
    """Leaves the events apart, with weight 1 each."""

    def pool(self, events: HistoryEvents) -> tuple[Bags, ...]:
        """Returns aligned bags: the values at one position are the sub-features of one event.

        A value may be missing (0) while another sub-feature of its event is present. Events without any value are left out.
        """
        events = events.latest(self.num_events)
        present = np.logical_or.reduce([column > 0 for column in events.values])
        offsets = offsets_of(np.bincount(row_of_value(events.offsets)[present], minlength=len(events.offsets) - 1))
        weights = np.ones(int(offsets[-1]), np.float32)
        return tuple(Bags(column[present].astype(np.int64, copy=False), offsets, weights) for column in events.values)


class SequencePooling(EventwisePooling):
    """Leaves the events apart and in order; the encoder also reads the time between them."""

    needs_times = True
