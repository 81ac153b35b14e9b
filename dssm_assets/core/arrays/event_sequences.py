"""Event sequences shared by the rows of a batch. Each row ends at an event of its own.

An encoder that only looks back, such as causal self-attention, runs once over a sequence and serves all of its rows.

Letters: B rows, S sequences, n events of all sequences, U users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges


@dataclass(frozen=True)
class EventSequences:
    """Sequences of events, oldest first, and the last event of each row.

    Attributes:
        values: per sub-feature the embedding index of each event [n], 0 for a missing value.
        seconds: time of each event in whole seconds [n].
        offsets: start of each sequence and the end of the last [S + 1].
        last: position of each row's last event among the n events [B], -1 for a row without events.
    """

    values: tuple[IntArray, ...]
    seconds: IntArray
    offsets: IntArray
    last: IntArray

    def select_rows(self, rows: IntArray) -> EventSequences:
        """Returns these rows, in this order. Each has a sequence of its own, up to its last event."""
        last = self.last[rows]
        owner = np.searchsorted(self.offsets, last, side="right") - 1
        starts = np.where(last >= 0, self.offsets[np.maximum(owner, 0)], 0)
        lengths = np.where(last >= 0, last + 1 - starts, 0)
        at, offsets = ranges(starts, lengths), offsets_of(lengths)
        own = np.where(last >= 0, offsets[1:] - 1, -1)
        return EventSequences(tuple(values[at] for values in self.values), self.seconds[at], offsets, own)

    def without_empty_events(self) -> EventSequences:
        """Drops events without any value. A row then ends at its last remaining event."""
        present = np.logical_or.reduce([values > 0 for values in self.values])
        if present.all():
            return self
        before = offsets_of(present)  # events that are left before each position [n + 1]
        offsets = before[self.offsets]
        known = self.last >= 0
        owner = np.searchsorted(self.offsets, self.last[known], side="right") - 1
        last = np.full(len(self.last), -1, np.int64)
        moved = before[self.last[known] + 1] - 1
        last[known] = np.where(moved >= offsets[owner], moved, -1)
        return EventSequences(tuple(values[present] for values in self.values), self.seconds[present], offsets, last)


@dataclass(frozen=True)
class SharedWindows:
    """Cuts users' histories into windows of `length` events. Samples in one window share one pass of the encoder.

    The cuts are moved by the user's shift. With a new shift in each epoch, an event's number of predecessors in its window varies.

    Attributes:
        user_ends: for each row, one after the last event of its user [B].
        shifts: shift of each row's user, at least 0 [B].
    """

    user_ends: IntArray
    shifts: npt.NDArray[np.int64]

    def first_events(self, starts: IntArray, ends: IntArray, length: int) -> IntArray:
        """Returns the first event of the window in which each row's history ends [B]. An empty history keeps its start.

        Example: a user with the events 0 .. 6, a length of 3 and a shift of 1 has the windows 0 1, 2 3 4 and 5 6. A history
        that ends behind event 3 sees events 2 and 3.

        Args:
            starts: first event of each row's history [B].
            ends: one after the last event of each row's history [B].
        """
        shift = np.where(self.user_ends - starts > length, self.shifts % length, 0)
        window = (ends - 1 - starts + shift) // length
        return np.asarray(np.maximum(starts, starts + window * length - shift))


def shared_passes(firsts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Groups histories with the same first event into one pass of the encoder, up to the last event of the longest.

    Returns the events of all passes [n], their offsets [S + 1], and the position of each row's last event [B].

    Example: histories 4 .. 5, 4 .. 7 and 9 .. 8 (empty) are one pass over the events 4 5 6 7. The rows end at its positions
    1, 3 and -1 (no event).

    Args:
        firsts: first event of each row's history [B].
        ends: one after its last event [B].
    """
    filled = np.flatnonzero(ends > firsts)
    distinct, owner = np.unique(firsts[filled], return_inverse=True)
    stops = np.zeros(len(distinct), np.int64)
    np.maximum.at(stops, owner, ends[filled])
    offsets = offsets_of(stops - distinct)
    last = np.full(len(firsts), -1, np.int64)
    last[filled] = offsets[owner] + ends[filled] - 1 - firsts[filled]
    return ranges(distinct, stops - distinct), offsets, last
