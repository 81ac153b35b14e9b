"""The four channels: each proposes items for a user, and describes any item of the corpus by a few signals.

Belongs here: the interface of a channel, and the channels made from arrays, for the evaluation and the recall service alike. Does
not belong here: the merged list (`merge.py`), reading arrays from tables (`steps/`) or a bundle (`service/engine/channels.py`).

Shapes: U users, B users of a block, L proposed items, C candidates, S signals of a channel, I items, E (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import top_of_rows
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, Mask, offsets_of, ranges, repeat_rows
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.neighbors_recent import largest_of_rows, score_neighbors
from dssm_assets.core.evaluation.item_neighbors import NeighborLists, csr_of

Float64Array = npt.NDArray[np.float64]

RANK: Final = "rank"
"""Signal of an item's position in a list: ln((L + 1) / (position + 1)), positions from 0. In a list of 500 the first item has
6.2, the last almost 0. Items outside the list have 0."""
SIMILARITY: Final = "similarity"
"""Signal of the vectors: (score - mean) / standard deviation, over the scores in the user's list. Signal of the neighbours:
ln(1 + 20 c / the user's largest c), where c is an item's sum of similarities to the user's items."""
WINDOW_EVENTS: Final = "window_events"
"""Signal: ln(1 + positive events of the item in the window)."""
RECENT_EVENTS: Final = "recent_events"
"""Signal: ln(1 + recent events of the item); an event counts half after each half-life (`evaluation.recent`)."""
HISTORY_EVENTS: Final = "history_events"
"""Signal: ln(1 + positive events of the item on all days that are known)."""
EVENT_SIGNALS: Final = (WINDOW_EVENTS, RECENT_EVENTS, HISTORY_EVENTS)
"""The signals of `PopularityChannel.describe`, in its order."""
IS_OWN: Final = "is_own"
"""Signal: 1 for every item of the user's history."""
OWN_EVENTS: Final = "own_events"
"""Signal: ln(positive events of the user on the item)."""
OWN_AGE: Final = "own_age"
"""Signal: ln(days since the last event), at least ln 1 = 0."""
ITEM_REPEATS: Final = "item_repeats"
"""Signal: ln((events + 1) / (users + 1)) of the item in the window: how often a user repeats it."""
OWN_SIGNALS: Final = (IS_OWN, OWN_EVENTS, OWN_AGE, ITEM_REPEATS)
"""The signals of `OwnHistoryChannel.describe`, in its order."""
OWN_ORDER: Final = (0.8, -0.3, 0.2)
"""Weights of OWN_EVENTS, OWN_AGE and ITEM_REPEATS. Their weighted sum orders the user's own list."""
DAY_MS: Final = 86_400_000
DENSE_SCORES: Final = 1 << 20
"""Scores of users times items in memory at once, when the candidates' scores are looked up."""


class Channel(Protocol):
    """A source of items. It proposes some items for each user, and describes any item by signals (numbers)."""

    @property
    def name(self) -> ChannelName: ...

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns item_index int64 [B, L] for users given by row: best first, distinct, -1 after the last."""

    def describe(self, user_rows: IntArray, candidates: IntArray, positions: IntArray) -> Float64Array:
        """Returns the channel's signals of candidates, float64 [S, B, C], named in `merge.SIGNALS`. A signal is 0 if the channel does not know the item.

        Args:
            user_rows: rows of the users [B].
            candidates: item_index int64 [B, C], -1 for none.
            positions: position of each candidate in this channel's proposals, int64 [B, C]; -1 if it is not among them.
        """


class NearestItems(Protocol):
    """Searches with a model's vectors: finds the items nearest to each user, and scores any item."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, -1 after the last."""

    def score_items(self, user_rows: IntArray, items: IntArray) -> Float64Array:
        """Returns the scores of items [B, C], float64 [B, C]. For a user without a vector, or the item -1, it is any finite number."""


class OwnItems(NamedTuple):
    """The items of each user's positive events before a moment: user u has items[indptr[u]:indptr[u + 1]], ascending."""

    indptr: IntArray
    """int64 [U + 1]"""
    items: IntArray
    """int64 [E]"""
    counts: IntArray
    """int64 [E], positive events."""
    last_time_ms: IntArray
    """int64 [E], time of the last event."""


def join_users(users: Sequence[OwnItems]) -> OwnItems:
    """Joins objects of one user each into one object."""
    _, *columns = map(np.concatenate, zip(*users, strict=True))
    return OwnItems(offsets_of([len(one.items) for one in users]), *columns)


COUNTS: Final = ("window_events", "recent_events", "history_events", "window_users")
"""Attributes of `SharedData` with one number per item. A bundle stores them as columns."""


@dataclass(frozen=True)
class SharedData:
    """Arrays that the channels of all users share, as of one moment.

    Attributes:
        window_events: int64 [I], positive events of each item in the window.
        recent_events: float64 [I], the same number, but an event counts half after each half-life.
        history_events: int64 [I], positive events of each item on all known days.
        window_users: int64 [I], users with a positive event on the item in the window.
        neighbors: scipy csr [I, I]. Row i has the similarities of the items most similar to item i.
    """

    window_events: IntArray
    recent_events: Float64Array
    history_events: IntArray
    window_users: IntArray
    neighbors: Any

    @classmethod
    def fit(cls, data: FitData) -> SharedData:
        """Computes the arrays from the interactions of all users."""
        users = np.bincount(data.user_items.items, minlength=len(data.window_events))
        counts = (data.window_events, data.recent_events, data.history_events, users)
        return cls(*counts, data.find_neighbors(data.window_days))

    def to_arrays(self) -> Arrays:
        csr = {"starts": self.neighbors.indptr, "items": self.neighbors.indices, "similarities": self.neighbors.data}
        return {name: getattr(self, name) for name in COUNTS} | csr

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> SharedData:
        neighbors = csr_of(arrays["starts"], arrays["items"], arrays["similarities"])
        return cls(**{name: arrays[name] for name in COUNTS}, neighbors=neighbors)

    @cached_property
    def recent_order(self) -> IntArray:
        """Returns all items int64 [I] by recent events, then events of the window (both descending), then index.

        This order fills up lists, and is the whole list of an unknown user.
        """
        return np.lexsort((-self.window_events, -self.recent_events)).astype(np.int64)

    @cached_property
    def event_signals(self) -> Float64Array:
        """Returns EVENT_SIGNALS of every item, float64 [3, I + 1]. The last entry, for the item -1, is 0."""
        events = np.stack([self.window_events, self.recent_events, self.history_events])
        return np.log1p(np.pad(events, ((0, 0), (0, 1))).astype(np.float64))

    @cached_property
    def repeats(self) -> Float64Array:
        """Returns ITEM_REPEATS of every item, float64 [I]."""
        return np.asarray(np.log((self.window_events + 1.0) / (self.window_users + 1.0)))


def make_channels(
    depths: Mapping[ChannelName, int],
    shared: SharedData,
    own: OwnItems,
    nearest: NearestItems | None,
    now_ms: int,
    allowed: Mask | None = None,
) -> tuple[Channel, ...]:
    """Returns the configured channels for some users.

    Args:
        depths: number of proposed items by channel, in the order of the channels.
        shared: the data that all users share, up to `now_ms`.
        own: the users' items before `now_ms`.
        nearest: search with vectors. None: the channel of vectors is left out.
        allowed: bool [I], the items that may be in a list. None: all. `nearest` may propose others.
    """
    made: list[Channel] = []
    for name, depth in depths.items():
        if name is ChannelName.OWN_HISTORY:
            made.append(OwnHistoryChannel(own, shared.repeats, now_ms, depth, allowed))
        elif name is ChannelName.ITEM_TO_ITEM:
            # Own items are left out, because the channel of own history proposes them.
            lists = NeighborLists(own.indptr, own.items, shared.neighbors, has_own_items=False, allowed=allowed)
            made.append(NeighborChannel(lists, depth))
        elif name is ChannelName.RECENT_POPULARITY:
            made.append(PopularityChannel(first_allowed(shared.recent_order, allowed, depth), shared.event_signals))
        elif nearest is not None:
            made.append(VectorChannel(nearest, depth))
    return tuple(made)


@dataclass(frozen=True)
class OwnHistoryChannel:
    """The channel of a user's own items, ordered by count and age: ten purchases a year ago must not beat nine of last week."""

    own: OwnItems
    repeats: Float64Array
    """float64 [I], ITEM_REPEATS."""
    now_ms: int
    """The moment that ages are counted from."""
    depth: int
    allowed: Mask | None = None
    """bool [I], the items that are proposed. None: all."""
    name: ChannelName = ChannelName.OWN_HISTORY

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns int64 [B, L], as wide as the longest list."""
        lengths, pairs = self._pairs(user_rows)
        if self.allowed is not None:
            is_allowed = self.allowed[self.own.items[pairs]]
            owner, pairs = repeat_rows(lengths)[is_allowed], pairs[is_allowed]
            lengths = np.bincount(owner, minlength=len(user_rows))
        _, events, age, repeats = self._describe_pairs(pairs)
        score = OWN_ORDER[0] * events + OWN_ORDER[1] * age + OWN_ORDER[2] * repeats
        return top_of_rows(lengths, self.own.items[pairs], score, min(self.depth, int(lengths.max(initial=0))))

    def describe(self, user_rows: IntArray, candidates: IntArray, positions: IntArray) -> Float64Array:
        signals = np.zeros((len(OWN_SIGNALS), *candidates.shape))
        lengths, pairs = self._pairs(user_rows)
        found, is_own = ItemSets(offsets_of(lengths), self.own.items[pairs]).find(candidates)
        signals[:, is_own] = self._describe_pairs(pairs[found[is_own]])
        return signals

    def _pairs(self, user_rows: IntArray) -> tuple[IntArray, IntArray]:
        starts = self.own.indptr[user_rows]
        lengths = self.own.indptr[user_rows + 1] - starts
        return lengths, ranges(starts, lengths)

    def _describe_pairs(self, pairs: IntArray) -> Float64Array:
        """Returns the signals float64 [4, n] of some pairs."""
        age_days = np.maximum((self.now_ms - self.own.last_time_ms[pairs]) / DAY_MS, 1.0)
        events, repeats = np.log(self.own.counts[pairs]), self.repeats[self.own.items[pairs]]
        return np.stack((np.ones(len(pairs)), events, np.log(age_days), repeats))


def rank_signal(positions: IntArray, length: int) -> Float64Array:
    """Returns the signal RANK, float64 [B, C], for positions [B, C] in lists of a length. 0 for the position -1."""
    gains = np.append(np.log((length + 1) / (np.arange(length) + 1)), 0.0)  # the last entry is for positions of -1
    return np.take(gains, positions)


@dataclass
class NeighborChannel:
    """The channel of the neighbours of a user's items. It describes all neighbours, also those outside its list."""

    lists: NeighborLists
    depth: int
    name: ChannelName = ChannelName.ITEM_TO_ITEM
    _known: tuple[IntArray, Any] | None = None
    """The users of the last call, and their scores."""

    def propose(self, user_rows: IntArray) -> IntArray:
        return self.lists.list_best(user_rows, self._score_items(user_rows), self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, positions: IntArray) -> Float64Array:
        scores = self._score_items(user_rows)
        summed = np.empty(candidates.shape)
        step = max(1, DENSE_SCORES // scores.shape[1])
        for users in (slice(begin, begin + step) for begin in range(0, len(candidates), step)):
            summed[users] = np.take_along_axis(scores[users].toarray(), np.maximum(candidates[users], 0), axis=1)
        similarity = np.where(candidates >= 0, score_neighbors(summed, largest_of_rows(scores)[:, None]), 0.0)
        return np.stack([rank_signal(positions, self.depth), similarity])

    def _score_items(self, user_rows: IntArray) -> Any:
        if self._known is None or not np.array_equal(self._known[0], user_rows):
            self._known = user_rows, self.lists.score_items(user_rows)
        return self._known[1]


@dataclass(frozen=True)
class VectorChannel:
    """The channel of the items nearest to a user's vector. It describes every item: those outside its list only by their score."""

    nearest: NearestItems
    depth: int
    name: ChannelName = ChannelName.VECTORS

    def propose(self, user_rows: IntArray) -> IntArray:
        return self.nearest.top_items(user_rows, self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, positions: IntArray) -> Float64Array:
        scores = self.nearest.score_items(user_rows, candidates)
        # Sums over the positions of the list, so that they do not depend on who else is in the block.
        listed = np.zeros((len(user_rows), self.depth))
        is_listed = np.zeros(listed.shape, np.bool_)
        row, column = np.nonzero(positions >= 0)
        listed[row, positions[row, column]], is_listed[row, positions[row, column]] = scores[row, column], True
        count = np.maximum(is_listed.sum(axis=1, keepdims=True), 1)
        mean = listed.sum(axis=1, keepdims=True) / count
        deviation = np.sqrt(((listed - mean) ** 2 * is_listed).sum(axis=1, keepdims=True) / count)
        is_known = (candidates >= 0) & (deviation > 0)
        similarity = np.where(is_known, (scores - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
        return np.stack([rank_signal(positions, self.depth), similarity])


@dataclass(frozen=True)
class PopularityChannel:
    """The channel of recently popular items, the same for all users."""

    order: IntArray
    """int64 [L], best first."""
    values: Float64Array
    """float64 [3, I + 1], `SharedData.event_signals`."""
    name: ChannelName = ChannelName.RECENT_POPULARITY

    def propose(self, user_rows: IntArray) -> IntArray:
        return np.tile(self.order, (len(user_rows), 1))

    def describe(self, user_rows: IntArray, candidates: IntArray, positions: IntArray) -> Float64Array:
        return np.take(self.values, candidates, axis=1)


def first_allowed(order: IntArray, allowed: Mask | None, count: int) -> IntArray:
    """Returns the first allowed items of an order, at most `count`. `allowed` is bool [I], None: all."""
    if allowed is None:
        return order[:count]
    found, total, start, step = [order[:0]], 0, 0, 4 * count
    while start < len(order) and total < count:
        block = order[start : start + step]
        found.append(block[allowed[block]])
        total, start, step = total + len(found[-1]), start + step, 2 * step
    return np.concatenate(found)[:count]
