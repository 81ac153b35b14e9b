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
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.channels.channel import RANK, RECENT_EVENTS, SIMILARITY, WINDOW_EVENTS, Channel, Float64Array, places_in
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
    """int64 [B, C], ascending and distinct within a row except for -1, which is no item and stands anywhere."""
    proposed: tuple[IntArray, ...]
    """Of each channel, int64 [B, L]."""


def find_candidates(channels: Sequence[Channel], user_rows: IntArray) -> Candidates:
    """Returns the union of what the channels propose."""
    proposed = tuple(channel.propose(user_rows) for channel in channels)
    items = np.sort(np.concatenate(proposed, axis=1), axis=1)
    items[:, 1:][items[:, 1:] == items[:, :-1]] = -1
    return Candidates(items, proposed)


def stack_terms(channels: Sequence[Channel], user_rows: IntArray, candidates: Candidates) -> Float64Array:
    """Returns the value of each term for each candidate, float64 [F, B, C]; see `terms_of`."""
    plain: list[Float64Array] = []
    own: Float64Array | None = None
    crossed: list[int] = []
    for channel, proposed in zip(channels, candidates.proposed, strict=True):
        signals = channel.describe(user_rows, candidates.items, proposed)
        if channel.name is _OWN:
            own = signals[..., SIGNALS[_OWN].index(IS_OWN)]
        else:
            crossed += range(len(plain), len(plain) + signals.shape[-1])
        plain.extend(np.moveaxis(signals, -1, 0))
    if own is not None:
        plain += [plain[place] * own for place in crossed]
    return np.stack(plain)


@dataclass(frozen=True)
class MergedScorer:
    """The merged list as a scorer: candidates by log-odds, equal ones by item_index, then the popular items."""

    merge: Merge
    channels: tuple[Channel, ...]
    """Those of the merge, in its order."""
    fill_order: IntArray
    """int64 [I], what lists are filled up from."""
    block_size: int = 64

    @property
    def name(self) -> str:
        """Returns the name of the merge."""
        return self.merge.name

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K]."""
        return self.merge_lists(find_candidates(self.channels, user_rows), user_rows, k)[0]

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        """Returns item_index int64 [B, K], the list without some items of each user."""
        ranked = self.top_items(user_rows, k + int(excluded.lengths.max(initial=0)))
        return keep_first(ranked, ~excluded.contains(np.arange(len(ranked))[:, None], ranked) & (ranked >= 0), k)

    def merge_lists(self, candidates: Candidates, user_rows: IntArray, k: int) -> tuple[IntArray, Float64Array]:
        """Returns item_index int64 [B, K] and log-odds [B, K]; popular items beyond the candidates have the intercept's.

        Args:
            candidates: what the channels propose for these users.
            user_rows: rows of the users [B].
            k: K.
        """
        odds = np.full(candidates.items.shape, self.merge.intercept)
        # Term after term: a matrix product would round one row differently from the same row among others.
        terms = terms_of(self.merge.channels)
        for term, values in zip(terms, stack_terms(self.channels, user_rows, candidates), strict=True):
            odds += self.merge.weights[term] * values
        odds[candidates.items < 0] = -np.inf
        order = np.argsort(-odds, axis=1, kind="stable")[:, :k]
        lists = fill_up(np.take_along_axis(candidates.items, order, 1), self.fill_order, k)
        scores = np.full(lists.shape, self.merge.intercept)
        best = np.take_along_axis(odds, order, 1)
        scores[:, : best.shape[1]] = np.where(np.isfinite(best), best, self.merge.intercept)
        return lists, scores


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


def proposed_by(candidates: Candidates, items: IntArray) -> list[IntArray]:
    """Returns for each channel the place of each item in what it proposed, int64 [B, N] each; -1 where it did not propose it."""
    return [places_in(proposed, items) for proposed in candidates.proposed]
