"""The mean of the history, weighted by how many events ago each happened."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.poolings.history_pooling import HistoryEvents, HistoryPooling

_READ_SCALES: Final = 5
"""An event further back than this many scales has less than e ** -5 of the newest event's weight and is not read."""


class RecencyPooling(HistoryPooling):
    """Pools to the mean weighted by exp(-rank / scale); the newest event has rank 0."""

    @property
    def num_events(self) -> int:
        """The length, or the events that have weight worth reading if these are fewer."""
        return min(self.settings.length, math.ceil(_READ_SCALES * self.settings.scale))

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64]:
        """Returns the weights by rank [n]."""
        return np.asarray(np.exp(events.ranks / -self.settings.scale))
