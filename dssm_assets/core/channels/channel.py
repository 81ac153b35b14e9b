"""What a channel is: it proposes items for a user, and describes any item of the corpus by a few signals.

Shapes: B users of a block, L proposed items, C candidates, S signals of a channel, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.channels import ChannelName

Float64Array = npt.NDArray[np.float64]

RANK: Final = "rank"
"""Signal of a list: ln((L + 1) / (place + 1)), places from 0. The first of 500 has 6.2, the last almost 0, others have 0."""
SIMILARITY: Final = "similarity"
"""Signal of the vectors: by how many standard deviations of the scores in the user's list an item's score is above their mean."""
WINDOW_EVENTS: Final = "window_events"
"""Signal: ln(1 + positive events of the item in the window)."""
RECENT_EVENTS: Final = "recent_events"
"""Signal: ln(1 + positive events of the item in the recent days)."""
HISTORY_EVENTS: Final = "history_events"
"""Signal: ln(1 + positive events of the item on all days that are known)."""
EVENT_SIGNALS: Final = (WINDOW_EVENTS, RECENT_EVENTS, HISTORY_EVENTS)
"""In the order of `PopularityChannel.describe`."""


class Channel(Protocol):
    """A source of items."""

    @property
    def name(self) -> ChannelName:
        """Returns its name."""

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns item_index int64 [B, L] for the given rows of the users: best first, distinct, -1 after the last."""

    def describe(self, user_rows: IntArray, candidates: IntArray, places: IntArray) -> Float64Array:
        """Returns the signals float64 [S, B, C] of candidates (`merge.SIGNALS` names them); 0 where it says nothing about one.

        Args:
            user_rows: rows of the users [B].
            candidates: item_index int64 [B, C], -1 where there is none.
            places: int64 [B, C], of each candidate in what `propose` returns for these users; -1 where it is not there.
        """


def rank_signal(places: IntArray, length: int) -> Float64Array:
    """Returns the signal RANK of candidates, float64 [B, C], of their places [B, C] in lists of a length; -1: not in the list."""
    gains = np.append(np.log((length + 1) / (np.arange(length) + 1)), 0.0)  # the last entry is for places of -1
    return np.take(gains, places)


@dataclass(frozen=True)
class ListChannel:
    """A channel that knows an item by its position in a list."""

    name: ChannelName
    find: Callable[[IntArray, int], IntArray]
    """Returns item_index int64 [B, L] for rows of users and L, as `Scorer.top_items`."""
    depth: int

    def propose(self, user_rows: IntArray) -> IntArray:
        return self.find(user_rows, self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, places: IntArray) -> Float64Array:
        return rank_signal(places, self.depth)[None]


def first_allowed(order: IntArray, allowed: npt.NDArray[np.bool_] | None, count: int) -> IntArray:
    """Returns the first `count` items of an order that are allowed (bool [I]; None: all are); all there are if they are fewer."""
    if allowed is None:
        return order[:count]
    found, total, start, step = [order[:0]], 0, 0, 4 * count
    while start < len(order) and total < count:
        block = order[start : start + step]
        found.append(block[allowed[block]])
        total, start, step = total + len(found[-1]), start + step, 2 * step
    return np.concatenate(found)[:count]


class NearestItems(Protocol):
    """The vectors of a model: the items nearest to each user's vector, and the score of any item."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, -1 after the last."""

    def score_items(self, user_rows: IntArray, items: IntArray) -> Float64Array:
        """Returns the scores of items [B, C], float64 [B, C]; of a user without a vector and of the item -1 any finite numbers."""


@dataclass(frozen=True)
class VectorChannel:
    """The items nearest to the user's vector. It knows every item: those beyond the list by their score alone."""

    nearest: NearestItems
    depth: int
    name: ChannelName = ChannelName.VECTORS

    def propose(self, user_rows: IntArray) -> IntArray:
        return self.nearest.top_items(user_rows, self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, places: IntArray) -> Float64Array:
        scores = self.nearest.score_items(user_rows, candidates)
        # Sums over the places of the list, so that they do not depend on who else is in the block.
        listed = np.zeros((len(user_rows), self.depth))
        is_listed = np.zeros(listed.shape, np.bool_)
        row, column = np.nonzero(places >= 0)
        listed[row, places[row, column]], is_listed[row, places[row, column]] = scores[row, column], True
        count = np.maximum(is_listed.sum(axis=1, keepdims=True), 1)
        mean = listed.sum(axis=1, keepdims=True) / count
        deviation = np.sqrt(((listed - mean) ** 2 * is_listed).sum(axis=1, keepdims=True) / count)
        is_known = (candidates >= 0) & (deviation > 0)
        similarity = np.where(is_known, (scores - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
        return np.stack([rank_signal(places, self.depth), similarity])


def event_signals(window_events: IntArray, recent_events: IntArray, history_events: IntArray) -> Float64Array:
    """Returns the signals of EVENT_SIGNALS, float64 [3, I + 1]; the last entry, 0, is for no item, -1."""
    events = np.stack([window_events, recent_events, history_events]).astype(np.float64)
    return np.concatenate([np.log1p(events), np.zeros((len(events), 1))], axis=1)


@dataclass(frozen=True)
class PopularityChannel:
    """The same items for all users."""

    order: IntArray
    """int64 [I], best first."""
    values: Float64Array
    """float64 [3, I + 1], as of `event_signals`."""
    depth: int
    name: ChannelName = ChannelName.RECENT_POPULARITY

    def propose(self, user_rows: IntArray) -> IntArray:
        return np.tile(self.order[: self.depth], (len(user_rows), 1))

    def describe(self, user_rows: IntArray, candidates: IntArray, places: IntArray) -> Float64Array:
        return np.take(self.values, candidates, axis=1)
