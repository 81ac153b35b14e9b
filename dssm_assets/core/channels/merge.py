"""Merges the proposals of several channels into one list, ordered by the log-odds of an interaction.

    log-odds = intercept + sum over signals (weight * signal) + sum over pairs of signals (weight * signal * other signal)

A signal forms a pair with itself, too. Products let a signal's weight differ between known and new items, and between
popular and rare ones. Candidates are the items proposed by any channel; recently popular items fill the rest of a list.
Users without a vector have other weights, fitted without vectors. Users unknown to every channel get popular items alone.

The table of weights is at the end of this file.

Shapes: B users of a block, C candidates, L proposed items, S signals, K top-k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, groupby
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ordering import pad_rows, take_top, top_k
from dssm_assets.core.arrays.ragged import IntArray, Mask, offsets_of, repeat_rows
from dssm_assets.core.channels.channel import (
    EVENT_SIGNALS,
    IS_OWN,
    ITEM_REPEATS,
    OWN_AGE,
    OWN_EVENTS,
    OWN_SIGNALS,
    RANK,
    SIMILARITY,
    WINDOW_EVENTS,
    Channel,
    Float64Array,
)
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer, fill_up
from dssm_assets.core.evaluation.evaluation_tables import CHANNEL, MERGED, MERGED_WITHOUT
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.schema import ColumnSpec, TableSpec


class Signal(NamedTuple):
    """A number by which a channel describes an item."""

    channel: ChannelName
    name: str


class Term(NamedTuple):
    """A term of the log-odds: a signal, or the product of two signals in the order of SIGNALS."""

    signal: Signal
    other: Signal | None = None


RANK_OF_VECTORS: Final = Signal(ChannelName.VECTORS, RANK)
RANK_OF_NEIGHBORS: Final = Signal(ChannelName.ITEM_TO_ITEM, RANK)
SIMILARITY_OF_NEIGHBORS: Final = Signal(ChannelName.ITEM_TO_ITEM, SIMILARITY)
IS_OWN_ITEM: Final = Signal(ChannelName.OWN_HISTORY, IS_OWN)
SIGNALS: Final = (
    RANK_OF_VECTORS,
    Signal(ChannelName.VECTORS, SIMILARITY),
    *(Signal(ChannelName.OWN_HISTORY, name) for name in OWN_SIGNALS),
    RANK_OF_NEIGHBORS,
    SIMILARITY_OF_NEIGHBORS,
    *(Signal(ChannelName.RECENT_POPULARITY, name) for name in EVENT_SIGNALS),
)
"""All signals, each channel's in the order of `Channel.describe`."""
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
"""Default weights of terms. A fit draws its weights towards these. Any other term has the default 0."""
DEFAULT_INTERCEPT: Final = -7.0
_MOST_ITEMS: Final = 1 << 40


@dataclass(frozen=True)
class Merge:
    """The weights of one merged list.

    Attributes:
        name: name of the list: `merged`, or `merged_without_` and a channel.
        channels: in the order of the terms.
        weights: weight of each term.
        intercept: the log-odds of an item without signals.
    """

    name: str
    channels: tuple[ChannelName, ...]
    weights: Mapping[Term, float]
    intercept: float = DEFAULT_INTERCEPT


def signals_of(channels: Collection[ChannelName]) -> tuple[Signal, ...]:
    """Returns the signals of these channels, in the order of `Candidates.signals`."""
    return tuple(signal for signal in SIGNALS if signal.channel in channels)


def terms_of(channels: Collection[ChannelName]) -> tuple[Term, ...]:
    """Returns the terms of these channels: S signals, then their distinct products."""
    signals = signals_of(channels)
    pairs = combinations_with_replacement(signals, 2)
    is_own, own = IS_OWN_ITEM, ChannelName.OWN_HISTORY
    products = (Term(one, other) for one, other in pairs if not (one == is_own and other.channel is own))
    return (*map(Term, signals), *products)


def default_merges(channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns the merge of these channels with default weights; for several channels, also the merges without each."""
    merges = {MERGED: tuple(channels)}
    for left_out in channels if len(channels) > 1 else ():
        merges[f"{MERGED_WITHOUT}{left_out}"] = tuple(one for one in channels if one is not left_out)
    return [
        Merge(name, kept, {term: DEFAULT_WEIGHTS.get(term, 0.0) for term in terms_of(kept)}) for name, kept in merges.items()
    ]


class Candidates(NamedTuple):
    """The items that some channels propose for some users, with their signals."""

    items: IntArray
    """int64 [B, C], ascending and distinct within a row. -1 (no item) fills up the row."""
    positions: IntArray
    """int64 [channels, B, C]: the position of each item among the channel's proposals, -1 if the channel did not propose it."""
    signals: Float64Array
    """float64 [S, B, C], in the order of `signals_of`."""
    channels: tuple[ChannelName, ...]

    def select_users(self, rows: IntArray) -> Candidates:
        """Returns the candidates of some users, given as distinct ascending rows."""
        if len(rows) == len(self.items):
            return self
        return Candidates(self.items[rows], self.positions[:, rows], self.signals[:, rows], self.channels)

    def has_items_of(self, wanted: Collection[ChannelName]) -> Mask:
        """Returns whether each user has a candidate from one of these channels, bool [B]."""
        own = [name in wanted for name in self.channels]
        return np.asarray((self.positions[own] >= 0).any(axis=(0, 2)))

    def of_channels(self, wanted: Collection[ChannelName]) -> tuple[IntArray, list[Float64Array]]:
        """Returns the items proposed by these channels, int64 [B, C] with -1 in place of others, and the channels' signals."""
        own = [name in wanted for name in self.channels]
        said = zip(signals_of(self.channels), self.signals, strict=True)
        signals = [values for signal, values in said if signal.channel in wanted]
        return np.where((self.positions[own] >= 0).any(axis=0), self.items, -1), signals


def find_candidates(channels: Sequence[Channel], user_rows: IntArray) -> Candidates:
    """Returns the union of the channels' proposals, with their signals."""
    items, positions = unite_lists([channel.propose(user_rows) for channel in channels])
    said = {one.name: one.describe(user_rows, items, own) for one, own in zip(channels, positions, strict=True)}
    ordered = [said[name] for name in dict.fromkeys(signal.channel for signal in SIGNALS) if name in said]
    return Candidates(items, positions, np.concatenate(ordered), tuple(said))


def unite_lists(proposed: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Unites lists of the same users, int64 [B, L] each (distinct within a row, -1 after the last). Returns `Candidates`' items
    and positions.

    By hand: [[7, 3, -1]] and [[3, 5]] have the items [[3, 5, 7]], at the positions [[1, -1, 0]] and [[0, 1, -1]].
    """
    lists, widths = np.concatenate(proposed, axis=1), [one.shape[1] for one in proposed]  # [B, N]
    row, place = np.nonzero(lists >= 0)
    pairs, pair = np.unique(row * _MOST_ITEMS + lists[row, place], return_inverse=True)
    lengths = np.bincount(pairs // _MOST_ITEMS, minlength=len(lists))
    items = pad_rows(lengths, pairs % _MOST_ITEMS, -1)
    positions = np.full((len(proposed), *items.shape), -1, np.int64)
    channel = repeat_rows(widths)[place]
    positions[channel, row, pair - offsets_of(lengths)[row]] = place - offsets_of(widths)[channel]
    return items, positions


@dataclass
class BlockOfUsers:
    """Keeps the candidates of the last block of users, because several merged lists are ranked from them in turn."""

    channels: tuple[Channel, ...]
    _users: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    _candidates: Candidates | None = None

    def read(self, user_rows: IntArray) -> Candidates:
        """Returns the candidates of some users, given in ascending order."""
        rows = np.minimum(np.searchsorted(self._users, user_rows), len(self._users) - 1)
        if self._candidates is None or not np.array_equal(self._users[rows], user_rows):
            self._users, self._candidates = user_rows, find_candidates(self.channels, user_rows)
            return self._candidates
        return self._candidates.select_users(rows)


@dataclass(frozen=True)
class MergedScorer:
    """The merged list as a scorer: candidates by log-odds (ties by item_index), then popular items.

    A user without other proposals gets only popular items.
    """

    merge: Merge
    users: BlockOfUsers
    """Reads the users' candidates from at least the channels of the merge, in the order of the channels."""
    fill_order: IntArray
    without_vectors: Merge | None = None
    """The merge for users without a vector. None: `merge`."""

    @property
    def name(self) -> str:
        return self.merge.name

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        found = self.users.read(user_rows)
        has_vector = found.has_items_of([ChannelName.VECTORS])
        lists = PopularityScorer(self.name, self.fill_order).top_items(user_rows, k)
        for merge, is_ranked in ((self.merge, has_vector), (self.without_vectors or self.merge, ~has_vector)):
            is_known = found.has_items_of([name for name in merge.channels if name is not ChannelName.RECENT_POPULARITY])
            rows = np.flatnonzero(is_ranked & is_known)
            if len(rows):
                items, signals = found.select_users(rows).of_channels(merge.channels)
                lists[rows] = rank_candidates(merge, items, signals, self.fill_order, k).items
        return lists


class RankedItems(NamedTuple):
    items: IntArray
    """int64 [B, K], best first, -1 after the last."""
    odds: Float64Array
    """float64 [B, K], log-odds. Popular items that fill up the list have the intercept."""
    columns: IntArray
    """int64 [B, K], the column of each item in the candidates, -1 for popular items that fill up the list."""


def rank_candidates(
    merge: Merge, items: IntArray, signals: Sequence[Float64Array] | Float64Array, fill_order: IntArray, k: int
) -> RankedItems:
    """Ranks candidates by log-odds (ties by item_index). Popular items fill up the lists.

    Args:
        items: the candidates int64 [B, C]. Each row ascends, then has -1.
        signals: float64 [B, C] each, of the merge's channels.
        fill_order: int64 [I], fills lists up.
    """
    odds = log_odds(merge, signals)
    odds[items < 0] = -np.inf
    columns = top_k(odds, k)
    return RankedItems(fill_up(take_top(items, columns), fill_order, k), take_top(odds, columns, merge.intercept), columns)


def log_odds(merge: Merge, signals: Sequence[Float64Array] | Float64Array) -> Float64Array:
    """Returns the log-odds of candidates, float64 [B, C], from their signals, float64 [B, C] each.

    It adds term after term: a matrix product would round a candidate differently, depending on the others.
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
    """One channel alone as a scorer, named `channel_` and the channel's name. Popular items fill up its lists."""

    channel: ChannelName
    users: BlockOfUsers
    """Reads the users' candidates from at least this channel."""
    fill_order: IntArray

    @property
    def name(self) -> str:
        return f"{CHANNEL}{self.channel}"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        found = self.users.read(user_rows)
        positions = found.positions[found.channels.index(self.channel)]
        lists = np.full((len(user_rows), int(positions.max(initial=-1)) + 1), -1, np.int64)
        row, column = np.nonzero(positions >= 0)
        lists[row, positions[row, column]] = found.items[row, column]
        return fill_up(lists[:, :k], self.fill_order, k)


def channel_scorers(channels: Sequence[Channel], merges: Sequence[Merge], fill_order: IntArray) -> list[Scorer]:
    """Returns the merged lists as scorers, then each channel alone. The channel of vectors is left out: it equals the model."""
    users = BlockOfUsers(tuple(channels))
    without = next((merge for merge in merges if merge.name == f"{MERGED_WITHOUT}{ChannelName.VECTORS}"), None)
    merged: list[Scorer] = [
        MergedScorer(merge, users, fill_order, without if merge.name == MERGED else None) for merge in merges
    ]
    return merged + [ChannelScorer(one.name, users, fill_order) for one in channels if one.name is not ChannelName.VECTORS]


INTERCEPT: Final = "intercept"
"""The row of the intercept, in columns channel and signal."""
NONE: Final = ""
"""The columns other_channel and other_signal of a term that is not a product."""

CHANNEL_WEIGHTS: Final = TableSpec(
    name="channel_weights",
    grain="one row per merged list and term of its log-odds, and one for its intercept",
    key=("list_name", "channel", "signal", "other_channel", "other_signal"),
    columns=(
        ColumnSpec("list_name", pa.string(), "merged: the list of all channels; merged_without_X: the list without channel X."),
        ColumnSpec("channel", pa.string(), "The channel of the signal; `intercept` in the row of the intercept."),
        ColumnSpec("signal", pa.string(), "The signal by which the channel describes an item; core/channels defines each."),
        ColumnSpec("other_channel", pa.string(), "In a product of two signals, the channel of the second signal; else empty."),
        ColumnSpec("other_signal", pa.string(), "In a product, the second signal; in a square, the same as the first."),
        ColumnSpec(
            "weight",
            pa.float64(),
            "Added to the log-odds of an interaction per unit of the signal or product.",
        ),
        ColumnSpec("default_weight", pa.float64(), "The weight if there is no held-out day to fit on."),
    ),
)


def to_table(merges: Sequence[Merge]) -> pa.Table:
    rows: list[tuple[Any, ...]] = []
    for merge in merges:
        rows.append((merge.name, INTERCEPT, INTERCEPT, NONE, NONE, merge.intercept, DEFAULT_INTERCEPT))
        for (signal, other), weight in merge.weights.items():
            default = DEFAULT_WEIGHTS.get(Term(signal, other), 0.0)
            rows.append((merge.name, *signal, *(other or (NONE, NONE)), weight, default))
    schema = CHANNEL_WEIGHTS.schema
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in sorted(rows)], schema)


def from_rows(rows: Sequence[Mapping[str, Any]], channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns the merges in stored rows.

    Args:
        rows: rows of the table, or the same from a bundle.
        channels: all channels in their order; each merge keeps it.
    """
    merges = []
    for name, group in groupby(rows, key=lambda row: str(row["list_name"])):
        weights, intercept = dict[Term, float](), DEFAULT_INTERCEPT
        for row in group:
            if row["channel"] == INTERCEPT:
                intercept = float(row["weight"])
            else:
                signal = Signal(ChannelName(row["channel"]), row["signal"])
                other = Signal(ChannelName(row["other_channel"]), row["other_signal"]) if row["other_channel"] else None
                weights[Term(signal, other)] = float(row["weight"])
        kept = tuple(one for one in channels if one in {term.signal.channel for term in weights})
        merges.append(Merge(name, kept, weights, intercept))
    return merges
