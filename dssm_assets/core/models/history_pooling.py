"""What each kind of pooling makes of gathered events: how many it reads, and the weight of each.

Belongs here: `Past` and its bags. Does not belong here: gathering (`history`), the weights that a tower learns
(`attention_pooling`).

Weights by age: with a half-life of h days an event that is a days older than the row's newest counts 2 ** (-a / h). Ages
that were taken from the sample's event or from the evaluation day would multiply all weights of a row by one factor. A mean
would not see it, but a root would, so training and inference agree because both count from the newest event of the row,
which also cannot underflow to a row of zeros.

What is taken again and again says more than what was taken once, but not as many times more: with `repeats_root` the events
of one value count together the root of what they would count.

Letters: B rows, n events of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.model_config import Pooling, PoolingKind
from dssm_assets.core.models.bags import Bags, IntArray, mean_bags, offsets_of, root_bags, row_of

MS_PER_DAY: Final = 86_400_000
_SCALES: Final = 5
"""recency: an event that is further back than this many scales weighs less than e ** -5 of the newest and is not read."""


@dataclass(frozen=True)
class Past:
    """The last events of B rows, oldest first."""

    values: tuple[IntArray, ...]  # per sub-feature [n], 0 = missing
    offsets: IntArray  # [B + 1]
    times: IntArray | None  # [n] ms; None where no pooling asks for ages

    @cached_property
    def ranks(self) -> IntArray:
        """How many events of the row are newer [n]."""
        lengths = np.diff(self.offsets)
        ranks: IntArray = np.repeat(self.offsets[1:], lengths) - 1 - np.arange(self.offsets[-1], dtype=np.int64)
        return ranks

    @cached_property
    def age_days(self) -> npt.NDArray[np.float64]:
        """Days between an event and its row's newest [n].

        Raises:
            ValueError: the times were not gathered.
        """
        if self.times is None:
            raise ValueError("expected the times of the events, got none; gather them where a pooling has a half-life")
        lengths = np.diff(self.offsets)
        filled = lengths > 0
        newest = np.repeat(self.times[self.offsets[1:][filled] - 1], lengths[filled])
        return np.asarray((newest - self.times) / MS_PER_DAY)

    def last(self, count: int) -> Past:
        """Returns the same rows with so many events at most."""
        lengths = np.diff(self.offsets)
        if lengths.max(initial=0) <= count:
            return self
        kept = self.ranks < count
        times = None if self.times is None else self.times[kept]
        return Past(tuple(column[kept] for column in self.values), offsets_of(np.minimum(lengths, count)), times)


def reach(pooling: Pooling) -> int:
    """Returns how many events the pooling reads at most."""
    if pooling.kind is PoolingKind.RECENCY:
        return min(pooling.length, math.ceil(_SCALES * pooling.scale))
    return pooling.length


def has_ages(pooling: Pooling) -> bool:
    """Tells whether the pooling needs to know when events were."""
    return pooling.kind in (PoolingKind.MEAN, PoolingKind.ROOT) and pooling.half_life_days is not None


def pooled(pooling: Pooling, past: Past) -> tuple[Bags, ...]:
    """Returns one bag per sub-feature.

    Of an attention pooling the bags are aligned: the values at one place are those of one event, and may be missing (0)
    while another sub-feature of the event is not; their weights are 1.
    """
    seen = past.last(reach(pooling))
    if pooling.kind is PoolingKind.ATTENTION:
        return _aligned(seen)
    make = root_bags if pooling.kind is PoolingKind.ROOT else mean_bags
    importance = _importance(pooling, seen)
    if not pooling.repeats_root:
        return tuple(make(column, seen.offsets, importance) for column in seen.values)
    return tuple(make(column, seen.offsets, _repeats_as_root(column, seen.offsets, importance)) for column in seen.values)


def _importance(pooling: Pooling, past: Past) -> npt.NDArray[np.float64] | None:
    if pooling.kind is PoolingKind.RECENCY:
        return np.asarray(np.exp(past.ranks / -pooling.scale))
    if pooling.half_life_days is None:
        return None
    # The floor keeps an ancient event's weight above zero: a row whose newest event has no value still has a mean.
    return np.asarray(np.exp2(-np.minimum(past.age_days / float(pooling.half_life_days), 900.0)))


def _repeats_as_root(
    values: IntArray, offsets: IntArray, importance: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Returns importances of which those of one row and value sum to the root of what they summed to [n].

    Three events of importance 1, two of them of one value: 1 / sqrt(2), 1 / sqrt(2), 1.
    """
    given = np.ones(len(values)) if importance is None else importance
    keys = row_of(offsets) * (int(values.max(initial=0)) + 1) + values
    _, kind = np.unique(keys, return_inverse=True)
    return np.asarray(given / np.sqrt(np.bincount(kind, weights=given))[kind])


def _aligned(past: Past) -> tuple[Bags, ...]:
    present = np.logical_or.reduce([column > 0 for column in past.values])
    offsets = offsets_of(np.bincount(row_of(past.offsets)[present], minlength=len(past.offsets) - 1))
    weights = np.ones(int(offsets[-1]), np.float32)
    return tuple(Bags(column[present].astype(np.int64, copy=False), offsets, weights) for column in past.values)
