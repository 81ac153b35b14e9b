"""Merges what several channels propose to one list, by the log-odds that the user interacts with an item.

    log-odds = intercept + sum over signals (weight + own_weight * is_own) * signal

`own_weight` exists for the signals of all channels but own history: what a list says about an item of the user's history is
worth another weight than what it says about a new one. A candidate is any item that a channel proposes; the popular items follow
where the candidates do not fill a list.

Belongs here: candidates, their log-odds, the merged list as a scorer. Does not belong here: how weights are fitted (`fit.py`).

Shapes: B users of a block, C candidates, L proposed items, F terms of the sum, K top-k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import order_largest
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, ranges, repeat_rows
from dssm_assets.core.channels.channel import RANK, RECENT_EVENTS, SIMILARITY, WINDOW_EVENTS, Channel, Float64Array
from dssm_assets.core.channels.own_history import (
    AGE_OF_RECENT,
    IS_OWN,
    ITEM_REPEATS,
    OWN_AGE,
    OWN_EVENTS,
    RECENT_SQUARED,
    WINDOW_SQUARED,
)
from dssm_assets.core.channels.own_history import SIGNALS as OWN_SIGNALS
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.evaluation_tables import CHANNEL, MERGED, MERGED_WITHOUT
from dssm_assets.core.evaluation.scorer import keep_first


class Term(NamedTuple):
    """A term of the log-odds: a signal of a channel, for every item or only for the user's own ones."""

    channel: ChannelName
    signal: str
    is_own_only: bool = False


_POPULARITY, _OWN = ChannelName.RECENT_POPULARITY, ChannelName.OWN_HISTORY
_NO_ITEM: Final = 1 << 40
_VECTORS, _NEIGHBORS = ChannelName.VECTORS, ChannelName.ITEM_TO_ITEM

SIGNALS: Final = {
    _VECTORS: (RANK, SIMILARITY),
    _OWN: OWN_SIGNALS,
    _NEIGHBORS: (RANK,),
    _POPULARITY: (WINDOW_EVENTS, RECENT_EVENTS),
}
"""Of each channel, in the order of `Channel.describe`."""
DEFAULT_WEIGHTS: Final[Mapping[Term, float]] = {
    Term(_VECTORS, RANK): 0.6,
    Term(_VECTORS, RANK, True): -0.6,
    Term(_VECTORS, SIMILARITY): 0.0,
    Term(_VECTORS, SIMILARITY, True): 0.0,
    Term(_OWN, IS_OWN): 2.5,
    Term(_OWN, OWN_EVENTS): 0.8,
    Term(_OWN, OWN_AGE): -0.25,
    Term(_OWN, ITEM_REPEATS): 0.7,
    Term(_OWN, AGE_OF_RECENT): 0.0,
    Term(_OWN, WINDOW_SQUARED): 0.0,
    Term(_OWN, RECENT_SQUARED): 0.0,
    Term(_NEIGHBORS, RANK): 0.1,
    Term(_NEIGHBORS, RANK, True): 0.0,
    Term(_POPULARITY, WINDOW_EVENTS): 0.2,
    Term(_POPULARITY, WINDOW_EVENTS, True): 0.1,
    Term(_POPULARITY, RECENT_EVENTS): 0.0,
    Term(_POPULARITY, RECENT_EVENTS, True): 0.0,
}
"""What the terms are worth where nothing better is known, and what fitted weights are drawn to."""
DEFAULT_INTERCEPT: Final = -7.0


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


def terms_of(channels: Sequence[ChannelName]) -> tuple[Term, ...]:
    """Returns the terms of these channels, as many as there are columns of `stack_terms`."""
    plain = [Term(channel, signal) for channel in channels for signal in SIGNALS[channel]]
    if _OWN not in channels:
        return tuple(plain)
    return (*plain, *(term._replace(is_own_only=True) for term in plain if term.channel is not _OWN))


def default_merges(channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns every merge of these channels by default weights, see `list_merges`."""
    return [
        Merge(name, kept, {term: DEFAULT_WEIGHTS[term] for term in terms_of(kept)})
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
    """The items that some channels propose for some users."""

    items: IntArray
    """int64 [B, C], ascending and distinct within a row; -1, which is no item, after the last."""
    places: IntArray
    """int64 [channels, B, C]: the place of each in what the channel proposed, -1 where it did not."""


def find_candidates(channels: Sequence[Channel], user_rows: IntArray) -> Candidates:
    """Returns the union of what the channels propose."""
    proposed = [channel.propose(user_rows) for channel in channels]
    return unite_lists(proposed)


def unite_lists(proposed: Sequence[IntArray]) -> Candidates:
    """Returns the union of lists of the same users, int64 [B, L] each, distinct within a row, -1 after the last.

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
    return Candidates(items, places)


def stack_terms(channels: Sequence[Channel], user_rows: IntArray, candidates: Candidates) -> Float64Array:
    """Returns the value of each term for each candidate, float64 [F, B, C]; see `terms_of`."""
    described = {
        channel.name: channel.describe(user_rows, candidates.items, places)
        for channel, places in zip(channels, candidates.places, strict=True)
    }
    plain = [*described.values()]
    if _OWN in described:
        is_own = described[_OWN][SIGNALS[_OWN].index(IS_OWN)]
        plain += [signals * is_own for name, signals in described.items() if name is not _OWN]
    return np.concatenate(plain)


class DescribedCandidates(NamedTuple):
    """The candidates of some users, with what the channels say about them."""

    items: IntArray
    """int64 [B, C], as of `Candidates`."""
    is_proposed: npt.NDArray[np.bool_]
    """bool [channels, B, C]: which channels proposed the candidate."""
    terms: Float64Array
    """float64 [F, B, C], as of `stack_terms`."""

    def select_users(self, places: IntArray) -> DescribedCandidates:
        """Returns those of the users at some places of the block."""
        return DescribedCandidates(self.items[places], self.is_proposed[:, places], self.terms[:, places])


@dataclass
class DescribedUsers:
    """What channels propose and say for the users that were asked for last, who may be asked for again.

    All merges of the same channels are ranked for the same users, one after the other, some users more than once.
    """

    channels: tuple[Channel, ...]
    _users: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    _block: DescribedCandidates | None = None

    def read(self, user_rows: IntArray) -> DescribedCandidates:
        """Returns the candidates of users, who are ascending."""
        places = np.minimum(np.searchsorted(self._users, user_rows), len(self._users) - 1)
        if self._block is not None and np.array_equal(self._users[places], user_rows):
            return self._block if len(user_rows) == len(self._users) else self._block.select_users(places)
        self._block = describe_candidates(self.channels, user_rows)
        self._users = user_rows
        return self._block


def describe_candidates(channels: Sequence[Channel], user_rows: IntArray) -> DescribedCandidates:
    """Returns what the channels propose for users, with the value of every term."""
    candidates = find_candidates(channels, user_rows)
    return DescribedCandidates(candidates.items, candidates.places >= 0, stack_terms(channels, user_rows, candidates))


@dataclass(frozen=True)
class MergedScorer:
    """The merged list as a scorer: candidates by log-odds, equal ones by item_index, then the popular items."""

    merge: Merge
    users: DescribedUsers
    """Of the channels of the merge, and maybe of others, in the order of the channels."""
    fill_order: IntArray
    """int64 [I], what lists are filled up from."""
    block_size: int = 64

    @property
    def name(self) -> str:
        """Returns the name of the merge."""
        return self.merge.name

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K]."""
        found, names = self.users.read(user_rows), [channel.name for channel in self.users.channels]
        own = [names.index(name) for name in self.merge.channels]
        all_terms = terms_of(names)
        columns = [all_terms.index(term) for term in terms_of(self.merge.channels)]
        items = np.where(found.is_proposed[own].any(axis=0), found.items, -1)
        return rank_candidates(self.merge, items, found.terms[columns], self.fill_order, k).items

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        """Returns item_index int64 [B, K], the list without some items of each user."""
        ranked = self.top_items(user_rows, k + int(excluded.lengths.max(initial=0)))
        return keep_first(ranked, ~excluded.contains(np.arange(len(ranked))[:, None], ranked) & (ranked >= 0), k)


class RankedItems(NamedTuple):
    """Merged lists."""

    items: IntArray
    """int64 [B, K], best first, -1 after the last."""
    odds: Float64Array
    """float64 [B, K], log-odds; popular items beyond the candidates have the intercept's."""
    columns: IntArray
    """int64 [B, K], of each among the candidates; -1 beyond them."""


def rank_candidates(merge: Merge, items: IntArray, terms: Float64Array, fill_order: IntArray, k: int) -> RankedItems:
    """Returns the best candidates, equal ones by item_index, and the popular items that fill the lists up.

    Args:
        merge: the weights.
        items: the candidates int64 [B, C], ascending but for -1.
        terms: float64 [F, B, C], of the merge's channels.
        fill_order: int64 [I], what lists are filled up from.
        k: K.
    """
    odds = np.full(items.shape, merge.intercept)
    # Term after term: a matrix product would round one row differently from the same row among others.
    for term, values in zip(terms_of(merge.channels), terms, strict=True):
        odds += merge.weights[term] * values
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


@dataclass(frozen=True)
class ChannelScorer:
    """One channel alone as a scorer, filled up with popular items; named `channel_` and the channel."""

    channel: Channel
    fill_order: IntArray
    """int64 [I], what lists are filled up from."""
    block_size: int = 64

    @property
    def name(self) -> str:
        """Returns the name under which the results are stored."""
        return f"{CHANNEL}{self.channel.name}"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K]."""
        return fill_up(self.channel.propose(user_rows)[:, :k], self.fill_order, k)
