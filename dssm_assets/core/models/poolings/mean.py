"""The mean of the history, with a half-life if there is one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.poolings.history_pooling import HistoryEvents, HistoryPooling

_MAX_HALVINGS = 900.0
"""An older event keeps the weight 2 ** -900, above zero: a row whose newest event has no value still has a mean."""


class MeanPooling(HistoryPooling):
    """Pools to the mean; an event d days older than the newest has the weight 2 ** (-d / half_life_days)."""

    @property
    def needs_times(self) -> bool:
        """Whether there is a half-life."""
        return self.settings.half_life_days is not None

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64] | None:
        """Returns the weights by age [n]; None without a half-life."""
        if self.settings.half_life_days is None:
            return None
        return np.asarray(np.exp2(-np.minimum(events.age_days / float(self.settings.half_life_days), _MAX_HALVINGS)))
