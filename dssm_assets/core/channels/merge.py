"""Merges what several channels propose to one list, by the log-odds that the user interacts with an item.

    log-odds = intercept + sum over signals (weight * signal) + sum over pairs of signals (weight * signal * other signal)

A signal forms a pair with itself, too. Products let a signal's weight differ between known and new items, and between popular and
rare ones. A candidate is any item that a channel proposes; the popular items follow where the candidates do not fill a list.

Shapes: B users of a block, C candidates, L proposed items, S signals, K top-k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Final, NamedTuple

import numpy as np

from dssm_assets.core.arrays.ordering import order_largest
from dssm_assets.core.arrays.ragged import IntArray, ranges, repeat_rows
from dssm_assets.core.channels.channel import EVENT_SIGNALS, RANK, SIMILARITY, WINDOW_EVENTS, Channel, Float64Array
from dssm_assets.core.channels.own_history import IS_OWN, ITEM_REPEATS, OWN_AGE, OWN_EVENTS
from dssm_assets.core.channels.own_history import SIGNALS as OWN_SIGNALS
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.evaluation_tables import CHANNEL, MERGED, MERGED_WITHOUT


class Signal(NamedTuple):
    """What a channel says of an item."""

    channel: ChannelName
    name: str


class Term(NamedTuple):
    """A term of the log-odds: a signal, or the product of two, which are in the order of SIGNALS."""

    signal: Signal
    other: Signal | None = None


RANK_OF_VECTORS: Final = Signal(ChannelName.VECTORS, RANK)
RANK_OF_NEIGHBORS: Final = Signal(ChannelName.ITEM_TO_ITEM, RANK)
IS_OWN_ITEM: Final = Signal(ChannelName.OWN_HISTORY, IS_OWN)
SIGNALS: Final = (
    RANK_OF_VECTORS,
    Signal(ChannelName.VECTORS, SIMILARITY),
    *(Signal(ChannelName.OWN_HISTORY, name) for name in OWN_SIGNALS),
    RANK_OF_NEIGHBORS,
    *(Signal(ChannelName.RECENT_POPULARITY, name) for name in EVENT_SIGNALS),
)
"""All of them; those of a channel in the order of `Channel.describe`."""
DEFAULT_WEIGHTS: Final[Mapping[Term, float]] = {
    Term(RANK_OF_VECTORS): 0.6,
    Term(RANK_OF_VECTORS, IS_OWN_ITEM): -0.6,
    Term(IS_OWN_ITEM): 2.5,
    Term(Signal(ChannelName.OWN_HISTORY, OWN_EVENTS)): 0.8,
    Term(Signal(ChannelName.OWN_HISTORY, OWN_AGE)): -0.25,
    Term(Signal(ChannelName.OWN_HISTORY, ITEM_REPEATS)): 0.7,
    Term(RANK_OF_NEIGHBORS): 0.1,
    Term(Signal(ChannelName.RECENT_POPULARITY, WINDOW_EVENTS)): 0.2,
    Term(IS_OWN_ITEM, Signal(ChannelName.RECENT_POPULARITY, WINDOW_EVENTS)): 0.1,
}
"""What terms are worth where nothing better is known, and what fitted weights are drawn to; every other one 0."""
DEFAULT_INTERCEPT: Final = -7.0
_NO_ITEM: Final = 1 << 40


@dataclass(frozen=True)
class Merge:
    """The weights of one merged list.

    Attributes:
        name: of the list: `merged`, or `merged_without_` and a channel.
        channels: whose items are merged, in the order of the terms.
        weights: of each term.
        intercept: the log-odds of an item of which no channel says anything.
    """

    name: str
    channels: tuple[ChannelName, ...]
    weights: Mapping[Term, float]
    intercept: float = DEFAULT_INTERCEPT


def signals_of(channels: Collection[ChannelName]) -> tuple[Signal, ...]:
    """Returns the signals of these channels, in the order of `Candidates.signals`."""
    return tuple(signal for signal in SIGNALS if signal.channel in channels)


def terms_of(channels: Collection[ChannelName]) -> tuple[Term, ...]:
    """Returns the terms of these channels: S signals, then their products without those that equal a signal."""
    signals = signals_of(channels)
    pairs = combinations_with_replacement(signals, 2)
    is_own, own = IS_OWN_ITEM, ChannelName.OWN_HISTORY
    products = (Term(one, other) for one, other in pairs if not (one == is_own and other.channel is own))
    return (*map(Term, signals), *products)


def default_merges(channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns every merge of these channels by default weights, see `list_merges`."""
    return [
        Merge(name, kept, {term: DEFAULT_WEIGHTS.get(term, 0.0) for term in terms_of(kept)})
        for name, kept in list_merges(channels).items()
    ]


def list_merges(channels: Sequence[ChannelName]) -> dict[str, tuple[ChannelName, ...]]:
    """Returns the channels of each merged list by its name: of all of them, and without each of them if there are several."""
    merges = {MERGED: tuple(channels)}
    if len(channels) > 1:
        without = ((left_out, tuple(one for one in channels if one is not left_out)) for left_out in channels)
        merges |= {f"{MERGED_WITHOUT}{left_out}": kept for left_out, kept in without}
    return merges


class Candidates(NamedTuple):
    """The items that some channels propose for some users, and what the channels say about them."""

    items: IntArray
    """int64 [B, C], ascending and distinct within a row; -1, which is no item, after the last."""
    places: IntArray
    """int64 [channels, B, C]: the position of each in what the channel proposed, -1 where it did not."""
    signals: Float64Array
    """float64 [S, B, C], in the order of `signals_of`."""

    def select_users(self, rows: IntArray) -> Candidates:
        """Returns those of the users in some rows of the block."""
        return Candidates(self.items[rows], self.places[:, rows], self.signals[:, rows])


def find_candidates(channels: Sequence[Channel], user_rows: IntArray) -> Candidates:
    """Returns the union of what the channels propose, with their signals."""
    items, places = unite_lists([channel.propose(user_rows) for channel in channels])
    said = {one.name: one.describe(user_rows, items, positions) for one, positions in zip(channels, places, strict=True)}
    ordered = [said[name] for name in dict.fromkeys(signal.channel for signal in SIGNALS) if name in said]
    return Candidates(items, places, np.concatenate(ordered))


def unite_lists(proposed: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Returns items and places of `Candidates`, given lists of the same users, int64 [B, L] each, distinct within a row, -1 after the last.

    By hand: [[7, 3, -1]] and [[3, 5]] have the items [[3, 5, 7]], at the places [[1, -1, 0]] and [[0, 1, -1]].
    """
    lists = np.concatenate(proposed, axis=1)  # [B, N]
    num_users, width = lists.shape
    bits = width.bit_length()
    # Each with where it was proposed, so that one sort of numbers brings equal items together.
    keys = np.where(lists >= 0, lists, _NO_ITEM) << bits | np.arange(width)
    keys.sort(axis=1)
    found = keys >> bits
    is_item = found < _NO_ITEM
    is_first = is_item.copy()
    is_first[:, 1:] &= found[:, 1:] != found[:, :-1]
    column = np.cumsum(is_first, axis=1) - 1
    count = int(column.max(initial=-1)) + 1
    cell = (column + np.arange(num_users)[:, None] * count)[is_item]
    items = np.full((num_users, count), -1, np.int64)
    np.put(items, cell, found[is_item])
    source = keys[is_item] & ((1 << bits) - 1)
    lengths = [one.shape[1] for one in proposed]
    places = np.full((len(proposed), num_users, count), -1, np.int64)
    np.put(
        places,
        np.take(repeat_rows(lengths) * items.size, source) + cell,
        np.take(ranges(np.zeros(len(lengths), np.int64), lengths), source),
    )
    return items, places


@dataclass
class BlockOfUsers:
    """What channels propose and say for the users that were asked for last: all merged lists of a block of users are ranked in turn."""

    channels: tuple[Channel, ...]
    _users: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    _candidates: Candidates | None = None

    def read(self, user_rows: IntArray) -> Candidates:
        """Returns the candidates of users, who are ascending."""
        rows = np.minimum(np.searchsorted(self._users, user_rows), len(self._users) - 1)
        if self._candidates is None or not np.array_equal(self._users[rows], user_rows):
            self._users, self._candidates = user_rows, find_candidates(self.channels, user_rows)
            return self._candidates
        return self._candidates if len(user_rows) == len(self._users) else self._candidates.select_users(rows)


@dataclass(frozen=True)
class MergedScorer:
    """The merged list as a scorer: candidates by log-odds, equal ones by item_index, then the popular items."""

    merge: Merge
    users: BlockOfUsers
    """Of the channels of the merge, and maybe of others, in the order of the channels."""
    fill_order: IntArray
    """int64 [I], what lists are filled up from."""

    @property
    def name(self) -> str:
        return self.merge.name

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        found, names = self.users.read(user_rows), [channel.name for channel in self.users.channels]
        own = [names.index(name) for name in self.merge.channels]
        signals = [
            values for name, values in zip(signals_of(names), found.signals, strict=True) if name.channel in self.merge.channels
        ]
        items = np.where((found.places[own] >= 0).any(axis=0), found.items, -1)
        return rank_candidates(self.merge, items, signals, self.fill_order, k).items


class RankedItems(NamedTuple):
    """Merged lists."""

    items: IntArray
    """int64 [B, K], best first, -1 after the last."""
    odds: Float64Array
    """float64 [B, K], log-odds; popular items beyond the candidates have the intercept's."""
    columns: IntArray
    """int64 [B, K], of each among the candidates; -1 beyond them."""


def rank_candidates(
    merge: Merge, items: IntArray, signals: Sequence[Float64Array] | Float64Array, fill_order: IntArray, k: int
) -> RankedItems:
    """Returns the best candidates, equal ones by item_index, and the popular items that fill the lists up.

    Args:
        items: the candidates int64 [B, C], ascending but for -1.
        signals: float64 [B, C] each, of the merge's channels.
        fill_order: int64 [I], what lists are filled up from.
    """
    odds = log_odds(merge, signals)
    odds[items < 0] = -np.inf
    order = order_largest(odds, k)
    lists = fill_up(np.take_along_axis(items, order, 1), fill_order, k)
    scores, columns = np.full(lists.shape, merge.intercept), np.full(lists.shape, -1, np.int64)
    best = np.take_along_axis(odds, order, 1)
    is_candidate = np.isfinite(best)
    scores[:, : best.shape[1]][is_candidate], columns[:, : best.shape[1]][is_candidate] = (
        best[is_candidate],
        order[is_candidate],
    )
    return RankedItems(lists, scores, columns)


def log_odds(merge: Merge, signals: Sequence[Float64Array] | Float64Array) -> Float64Array:
    """Returns the log-odds float64 [B, C] of candidates by their signals, float64 [B, C] each.

    Term after term: a matrix product would round one candidate differently from the same one among others.
    """
    names = signals_of(merge.channels)
    odds, product = np.full(signals[0].shape, merge.intercept), np.empty(signals[0].shape)
    for place, (name, values) in enumerate(zip(names, signals, strict=True)):
        slope = np.full(values.shape, merge.weights[Term(name)])
        for other, others in zip(names[place:], signals[place:], strict=True):
            weight = merge.weights.get(Term(name, other), 0.0)
            if weight:
                slope += np.multiply(others, weight, out=product)
        odds += np.multiply(slope, values, out=product)
    return odds


@dataclass(frozen=True)
class ChannelScorer:
    """One channel alone as a scorer, filled up with popular items; named `channel_` and the channel."""

    channel: ChannelName
    users: BlockOfUsers
    """Of this channel and others."""
    fill_order: IntArray
    """int64 [I], what lists are filled up from."""

    @property
    def name(self) -> str:
        return f"{CHANNEL}{self.channel}"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        found = self.users.read(user_rows)
        places = found.places[[one.name for one in self.users.channels].index(self.channel)]
        lists = np.full((len(user_rows), int(places.max(initial=-1)) + 1), -1, np.int64)
        row, column = np.nonzero(places >= 0)
        lists[row, places[row, column]] = found.items[row, column]
        return fill_up(lists[:, :k], self.fill_order, k)
