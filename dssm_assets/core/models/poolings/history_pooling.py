"""What every pooling of a history shares: the events that it sees, and bags of weighted values that it makes of them.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, row_of_value
from dssm_assets.core.config.model import Pooling

MS_PER_DAY: Final = 86_400_000


@dataclass(frozen=True)
class HistoryEvents:
    """The latest events of B rows, oldest first.

    Attributes:
        values: embedding indices per sub-feature, 0 for a missing value [n].
        offsets: start of each row and the end of the last [B + 1].
        times: of the events in milliseconds [n]; None where no pooling needs them.
        firsts: per sub-feature, the place of the first event with the same value in its row [n]; None where it is not known.
    """

    values: tuple[IntArray, ...]
    offsets: IntArray
    times: IntArray | None
    firsts: tuple[IntArray, ...] | None = None

    @cached_property
    def ranks(self) -> IntArray:
        """Number of newer events in the same row [n]."""
        lengths = np.diff(self.offsets)
        ranks: IntArray = np.repeat(self.offsets[1:], lengths) - 1 - np.arange(self.offsets[-1], dtype=np.int64)
        return ranks

    @cached_property
    def age_days(self) -> npt.NDArray[np.float64]:
        """Days between an event and the newest one of its row [n].

        Raises:
            ValueError: the events have no times.
        """
        if self.times is None:
            raise ValueError("expected the times of the events, got none; read them where a pooling has a half-life")
        lengths = np.diff(self.offsets)
        filled = lengths > 0
        newest = np.repeat(self.times[self.offsets[1:][filled] - 1], lengths[filled])
        return np.asarray((newest - self.times) / MS_PER_DAY)

    def latest(self, count: int) -> HistoryEvents:
        """Returns the same rows with at most this many of their latest events."""
        lengths = np.diff(self.offsets)
        if lengths.max(initial=0) <= count:
            return self
        kept = self.ranks < count
        times = None if self.times is None else self.times[kept]
        return HistoryEvents(tuple(column[kept] for column in self.values), offsets_of(np.minimum(lengths, count)), times)


class HistoryPooling:
    """Pools a history to the mean of its values; a subclass changes the events, their weights or the normalisation."""

    def __init__(self, settings: Pooling) -> None:
        self.settings = settings

    @property
    def num_events(self) -> int:
        """Largest number of a row's events that the pooling reads."""
        return self.settings.length

    @property
    def needs_times(self) -> bool:
        """Whether the weights of events depend on their times."""
        return False

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64] | None:
        """Returns the positive weight of each event before normalisation [n]; None if all weigh the same."""
        return None

    def make_bags(self, values: IntArray, offsets: IntArray, weights: npt.NDArray[np.float64] | None) -> Bags:
        """Returns the bags of one sub-feature, its weights normalised."""
        return mean_bags(values, offsets, weights)

    def pool(self, events: HistoryEvents) -> tuple[Bags, ...]:
        """Returns one bag per sub-feature; the pooled vector is the weighted sum over the bag."""
        events = events.latest(self.num_events)
        weights = self.event_weights(events)
        if not self.settings.sqrt_repeats:
            return tuple(self.make_bags(values, events.offsets, weights) for values in events.values)
        groups = events.firsts or tuple(group_repeats(row_of_value(events.offsets), values) for values in events.values)
        return tuple(
            self.make_bags(values, events.offsets, _damp_repeats(group, weights))
            for values, group in zip(events.values, groups, strict=True)
        )


def group_repeats(row: IntArray, values: IntArray) -> IntArray:
    """Returns a number that events share if and only if they have the same row and value [n]: of the first one 0, and so on.

    Example: rows 0, 0, 0, 1 with values 5, 7, 5, 5: 0, 1, 0, 2.
    """
    keys = row * (int(values.max(initial=0)) + 1) + values
    groups: IntArray = pa.array(keys).dictionary_encode().indices.to_numpy()  # by hashing: np.unique sorts
    return groups


def _damp_repeats(group: IntArray, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """Returns weights that sum, over the events of a group, to the square root of the given weights' sum [n].

    Example: three events of weight 1, two of which are one group: 1 / sqrt(2), 1 / sqrt(2), 1.
    """
    if weights is None:
        return np.asarray((1.0 / np.sqrt(np.maximum(np.bincount(group), 1)))[group])
    return np.asarray(weights / np.sqrt(np.bincount(group, weights=weights))[group])
