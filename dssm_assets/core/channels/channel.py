"""What a channel is: it proposes items for a user, and describes any item of the corpus by a few signals.

Belongs here: the protocol, the look-up of candidates in lists, the channels that are lists of a scorer or one order for all
users. Does not belong here: own history (`own_history.py`), what the signals are worth (`merge.py`).

Shapes: B users of a block, L proposed items, C candidates, S signals of a channel, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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


class Channel(Protocol):
    """A source of items."""

    @property
    def name(self) -> ChannelName:
        """Returns its name."""

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns item_index int64 [B, L] for the given rows of the users: best first, distinct, -1 after the last."""

    def describe(self, user_rows: IntArray, candidates: IntArray, proposed: IntArray) -> Float64Array:
        """Returns the signals float64 [B, C, S] of candidates (`merge.SIGNALS` names them); 0 where it says nothing about one.

        Args:
            user_rows: rows of the users [B].
            candidates: item_index int64 [B, C], -1 where there is none.
            proposed: as of `propose` for these users.
        """


def places_in(lists: IntArray, candidates: IntArray) -> IntArray:
    """Returns the place of each candidate in its row's list, int64 [B, C]; -1 where the list does not have it.

    By hand: list [7, 3, -1], candidates [3, 5, -1, 7] -> [1, -1, -1, 0].

    Args:
        lists: int64 [B, L], distinct within a row, -1 after the last.
        candidates: int64 [B, C].
    """
    if not lists.size or not candidates.size:
        return np.full(candidates.shape, -1, dtype=np.int64)
    width = int(max(lists.max(), candidates.max())) + 2
    rows = np.arange(len(lists))[:, None] * width
    keys = np.where(lists >= 0, rows + lists, -1).ravel()
    order = np.argsort(keys, kind="stable")
    wanted = rows + candidates
    found = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    position = order[found]
    is_found = (candidates >= 0) & (keys[position] == wanted)
    return np.where(is_found, position % lists.shape[1], -1)


def rank_signal(proposed: IntArray, candidates: IntArray) -> Float64Array:
    """Returns the signal RANK of candidates, float64 [B, C, 1]."""
    places = places_in(proposed, candidates)
    length = proposed.shape[1]
    gains = np.append(np.log((length + 1) / (np.arange(length) + 1)), 0.0)  # the last entry is for places of -1
    signal: Float64Array = gains[places][..., None]
    return signal


@dataclass(frozen=True)
class ListChannel:
    """A channel that knows an item by its place in a list.

    Lists that were computed once are kept, because several merged lists are evaluated for the same users.
    """

    name: ChannelName
    find: Callable[[IntArray, int], IntArray]
    """Returns item_index int64 [B, L] for rows of users and L, as `Scorer.top_items`."""
    depth: int
    _kept: dict[bytes, npt.NDArray[np.int32]] = field(default_factory=dict)

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns item_index int64 [B, L]."""
        key = user_rows.tobytes()
        if key not in self._kept:
            self._kept[key] = self.find(user_rows, self.depth).astype(np.int32)
        return self._kept[key].astype(np.int64)

    def describe(self, user_rows: IntArray, candidates: IntArray, proposed: IntArray) -> Float64Array:
        """Returns float64 [B, C, 1]."""
        return rank_signal(proposed, candidates)


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
        """Returns item_index int64 [B, L]."""
        return self.nearest.top_items(user_rows, self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, proposed: IntArray) -> Float64Array:
        """Returns float64 [B, C, 2]."""
        places, scores = places_in(proposed, candidates), self.nearest.score_items(user_rows, candidates)
        # Sums over the places of the list, so that they do not depend on who else is in the block.
        listed, is_listed = np.zeros(proposed.shape), np.zeros(proposed.shape, np.bool_)
        row, column = np.nonzero(places >= 0)
        listed[row, places[row, column]], is_listed[row, places[row, column]] = scores[row, column], True
        count = np.maximum(is_listed.sum(axis=1, keepdims=True), 1)
        mean = listed.sum(axis=1, keepdims=True) / count
        deviation = np.sqrt(((listed - mean) ** 2 * is_listed).sum(axis=1, keepdims=True) / count)
        is_known = (candidates >= 0) & (deviation > 0)
        similarity = np.where(is_known, (scores - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
        return np.concatenate([rank_signal(proposed, candidates), similarity[..., None]], axis=2)


def event_signals(window_events: IntArray, recent_events: IntArray) -> Float64Array:
    """Returns the signals WINDOW_EVENTS and RECENT_EVENTS, float64 [I + 1, 2]; the last row, of zeros, is for no item, -1."""
    events = np.stack([window_events, recent_events], axis=1).astype(np.float64)
    return np.concatenate([np.log1p(events), np.zeros((1, 2))])


@dataclass(frozen=True)
class PopularityChannel:
    """The same items for all users."""

    order: IntArray
    """int64 [I], best first."""
    values: Float64Array
    """float64 [I + 1, 2], as of `event_signals`."""
    depth: int
    name: ChannelName = ChannelName.RECENT_POPULARITY

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns int64 [B, L]."""
        return np.tile(self.order[: self.depth], (len(user_rows), 1))

    def describe(self, user_rows: IntArray, candidates: IntArray, proposed: IntArray) -> Float64Array:
        """Returns float64 [B, C, 2]."""
        return self.values[candidates]
