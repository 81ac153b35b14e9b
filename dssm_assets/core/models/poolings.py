"""Poolings of the user's history. A pooling chooses events and weighs them.

To add a pooling, write one class, one line in `POOLINGS`, and its meaning in `PoolingKind` (core/config/model.py) and in the
serving rules (service/bundle/tower_layout.py). A plug-in (docs/platform.md) sets `POOLINGS["my_pooling"] = MyPooling`. Does
not belong here: reading events from a table (`tower_input`), layers that learn from single events (`event_layers`). This
module imports no torch, because the service uses it too.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, row_of_value
from dssm_assets.core.config.model import Pooling, PoolingKind
from dssm_assets.core.names import REGISTRIES

MS_PER_DAY: Final = 86_400_000
_MAX_HALVINGS: Final = 900.0
"""No event weighs less than 2 ** -900. Above zero, so a row still has a mean if its newest event has no value."""
_READ_SCALES: Final = 5
"""Events with a rank of this many scales or more are not read: they have at most e ** -5 of the newest event's weight."""
_CELLS_PER_VALUE: Final = 16
"""Keys are counted directly if there are at most so many possible keys per value. Otherwise they are numbered first."""


@dataclass(frozen=True)
class HistoryEvents:
    """The latest events of B rows, oldest first.

    Attributes:
        values: per sub-feature the embedding index of each event [n], 0 for a missing value.
        offsets: start of each row and the end of the last [B + 1].
        times: time of each event in milliseconds [n], None if no pooling needs it.
    """

    values: tuple[IntArray, ...]
    offsets: IntArray
    times: IntArray | None

    @cached_property
    def ranks(self) -> IntArray:
        """Returns the number of newer events in the same row [n]."""
        lengths = np.diff(self.offsets)
        ranks: IntArray = np.repeat(self.offsets[1:], lengths) - 1 - np.arange(self.offsets[-1], dtype=np.int64)
        return ranks

    @cached_property
    def age_days(self) -> npt.NDArray[np.float64]:
        """Returns the days from each event to the newest event of its row [n]. Raises an error if the events have no times."""
        assert self.times is not None
        lengths = np.diff(self.offsets)
        filled = lengths > 0
        newest = np.repeat(self.times[self.offsets[1:][filled] - 1], lengths[filled])
        return np.asarray((newest - self.times) / MS_PER_DAY)

    def latest(self, count: int) -> HistoryEvents:
        """Keeps at most this many of the latest events of each row."""
        lengths = np.diff(self.offsets)
        if lengths.max(initial=0) <= count:
            return self
        kept = self.ranks < count
        times = None if self.times is None else self.times[kept]
        return HistoryEvents(tuple(column[kept] for column in self.values), offsets_of(np.minimum(lengths, count)), times)


class HistoryPooling:
    """Pools a history to the weighted mean of its values. Subclasses choose other events, weights or normalisations."""

    needs_times = False
    """Whether the weights of events depend on their times."""

    def __init__(self, settings: Pooling) -> None:
        self.settings = settings
        self.num_events = settings.length
        """The pooling reads at most so many events of a row."""

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64] | None:
        """Returns the positive weight of each event before normalisation [n], None for equal weights."""
        return None

    def make_bags(self, values: IntArray, offsets: IntArray, weights: npt.NDArray[np.float64] | None) -> Bags:
        """Returns the bags of one sub-feature, with normalised weights."""
        return mean_bags(values, offsets, weights)

    def pool(self, events: HistoryEvents) -> tuple[Bags, ...]:
        """Returns the bags of each sub-feature. The weighted sum over a row's bag is its pooled vector."""
        events = events.latest(self.num_events)
        weights = self.event_weights(events)
        if not self.settings.sqrt_repeats:
            return tuple(self.make_bags(values, events.offsets, weights) for values in events.values)
        rows = row_of_value(events.offsets)
        return tuple(self.make_bags(values, events.offsets, _damp_repeats(rows, values, weights)) for values in events.values)


class MeanPooling(HistoryPooling):
    """Pools to the mean. With a half-life, an event d days older than the newest has weight 2 ** (-d / half_life_days)."""

    def __init__(self, settings: Pooling) -> None:
        super().__init__(settings)
        self.needs_times = settings.half_life_days is not None

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64] | None:
        if self.settings.half_life_days is None:
            return None
        return np.asarray(np.exp2(-np.minimum(events.age_days / float(self.settings.half_life_days), _MAX_HALVINGS)))


class RootPooling(MeanPooling):
    """Pools to sum(w * e) / sqrt(sum(w)), so that long histories have longer vectors. For the weights w see `MeanPooling`."""

    def make_bags(self, values: IntArray, offsets: IntArray, weights: npt.NDArray[np.float64] | None) -> Bags:
        return mean_bags(values, offsets, weights, np.sqrt)


class RecencyPooling(HistoryPooling):
    """Pools to the mean weighted by exp(-rank / scale); the newest event has rank 0."""

    def __init__(self, settings: Pooling) -> None:
        super().__init__(settings)
        self.num_events = min(settings.length, math.ceil(_READ_SCALES * settings.scale))

    def event_weights(self, events: HistoryEvents) -> npt.NDArray[np.float64]:
        return np.asarray(np.exp(events.ranks / -self.settings.scale))


class EventwisePooling(HistoryPooling):
    """Keeps events separate, with weight 1 each."""

    def pool(self, events: HistoryEvents) -> tuple[Bags, ...]:
        """Returns aligned bags: the values at one position belong to the same event.

        A value may be missing (0) if another sub-feature of its event is present. Events without any value are left out.
        """
        events = events.latest(self.num_events)
        present = np.logical_or.reduce([column > 0 for column in events.values])
        offsets = offsets_of(np.bincount(row_of_value(events.offsets)[present], minlength=len(events.offsets) - 1))
        weights = np.ones(int(offsets[-1]), np.float32)
        return tuple(Bags(column[present].astype(np.int64, copy=False), offsets, weights) for column in events.values)


class SequencePooling(EventwisePooling):
    """Keeps events separate and in order; the encoder also reads the time between them."""

    needs_times = True


def _damp_repeats(row: IntArray, values: IntArray, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """Scales down the weights of repeated values [n].

    In each row, the events with the same value get a total weight of the square root of their former total weight.

    Example: three events have weight 1, and two have the same value. They get 1 / sqrt(2), 1 / sqrt(2) and 1.
    """
    keys = row * (int(values.max(initial=0)) + 1) + values
    if keys.max(initial=0) > _CELLS_PER_VALUE * len(keys):
        keys = pa.array(keys).dictionary_encode().indices.to_numpy()
    if weights is None:
        return np.asarray((1.0 / np.sqrt(np.maximum(np.bincount(keys), 1)))[keys])
    return np.asarray(weights / np.sqrt(np.bincount(keys, weights=weights))[keys])


POOLINGS: Final[dict[str, type[HistoryPooling]]] = {
    PoolingKind.MEAN: MeanPooling,
    PoolingKind.ROOT: RootPooling,
    PoolingKind.RECENCY: RecencyPooling,
    PoolingKind.ATTENTION: EventwisePooling,
    PoolingKind.SEQUENCE: SequencePooling,
}
REGISTRIES["pooling"] = POOLINGS


def make_pooling(settings: Pooling) -> HistoryPooling:
    """Returns the pooling for an entry of `model.poolings`."""
    return POOLINGS[settings.kind](settings)
