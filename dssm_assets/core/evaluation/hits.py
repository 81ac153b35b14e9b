"""Hits: how many of a user's items are among the first k of the list that a scorer returns. Every hit rate is a sum of these.

A hit is a truth pair (user, item) whose item is among the first k items of the user's list, so a user's hits at k are
|set(list[:k]) & set(truth)|. `count_hits` reads top to bottom: lists, rank of every truth pair in them, counts per user.

A cell is one scope in one population, for example discovery x warm; every rate is reported per cell.

Does not belong here: rates and intervals (`rates.py`), lists for people to read (`detail.py`).

Shapes: U evaluated users, B users of a block, P truth pairs, K top-k, L entries of a longer list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray, Mask
from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.evaluation.evaluation_tables import MERGED, hits_column, is_part, ndcg_column, tier_scope
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.evaluation.scorer import ExcludingScorer, Scorer, keep_first
from dssm_assets.core.evaluation.segments import TIERS, tiers_of_items
from dssm_assets.core.evaluation.truth import Truth

MOST_USERS: Final = 0.95
"""Fraction of a block's users for whose own items the first ranking has room, unless they are more than K."""
MAX_ENTRIES: Final = 1 << 21
"""List entries ranked at once; longer lists are ranked for fewer users at a time."""
MAX_COMPARISONS: Final = 4_000_000
"""Pairs times list positions compared at once."""


@dataclass(frozen=True)
class HitCounts:
    """Hits of a run and who could not be counted.

    Attributes:
        table: scorer, scope, population, user_id, truth_count, hits_{k} and ndcg_{k} per k; sorted by the first four. One row per scorer,
            scope, population and user with truth there; of parts of merged lists, of sampled users alone.
        users_without_truth: "scope/population" -> evaluated users who have no truth there and therefore no row.
    """

    table: pa.Table
    users_without_truth: dict[str, int]


class InteractedItems(NamedTuple):
    """What each of U evaluated users interacted with before the day."""

    window: Exclusions
    """Items of the window."""
    history: Exclusions
    """Items of all stored days, those of the window included."""

    def select_users(self, users: IntArray) -> InteractedItems:
        """Returns the items of the given users, in that order."""
        return InteractedItems(self.window.select_users(users), self.history.select_users(users))


class RankedLists(NamedTuple):
    """The lists of B users, int64 [B, K] each, -1 after the last item; or the ranks int64 [P] of truth pairs in them."""

    everything: IntArray
    """All items are candidates."""
    without_window: IntArray
    """Without the user's items of the window."""
    without_history: IntArray
    """Without all that the user interacted with before."""

    def in_scope(self, scope: Scope) -> IntArray:
        """Returns the lists, or ranks, of a scope."""
        others = {Scope.DISCOVERY: self.without_window, Scope.UNSEEN: self.without_history}
        return others.get(scope, self.everything)


class ColdScope(NamedTuple):
    """What scope `cold` is counted with."""

    is_cold: Mask
    """bool [I], which items nobody interacted with before."""
    scorers: Sequence[Scorer]
    """Of these items alone."""


def count_hits(
    scorers: Sequence[Scorer],
    truth: Truth,
    interacted: InteractedItems,
    ks: Sequence[int],
    cold: ColdScope | None = None,
    is_sampled: Mask | None = None,
    item_tier: IntArray | None = None,
) -> HitCounts:
    """Returns the hits and NDCG at every k, one row per scorer, scope, population and user with truth there (of the sample, for parts).

    The lists of scopes `all`, `repeat` and `new` are the same; those of `discovery` leave out the user's window items, those
    of `unseen` everything that the user interacted with before, those of `cold` everything that anybody did. An item outside the
    corpus is cold. Of the merged list the hits on each tier of items are counted, too (`tier_scope`), in population `all`.

    By hand: k = 2, u interacted with a, b and d on the day, had a in the window and d long before; the list is a, d, c, b.
    Scope all: the first two are a, d, so 2 hits of 3. Discovery: the list without a is d, c, so 1 hit (d) of 2 (b, d). Repeat:
    a is found, 1 of 1. New: b is not among the first two, 0 of 1. Unseen: the list without a and d is c, b: 1 of 1.

    Args:
        ks: cut-offs, ascending.
        cold: what scope `cold` is counted with; None: without this scope.
        is_sampled: bool [U], users whom scorers of parts (`evaluation_tables.is_part`) rank items for; None: all.
        item_tier: int64 [I], position of each item's tier in TIERS; None: tiers are not counted.
    """
    truth = truth.with_history(interacted.history)
    is_sampled = np.ones(truth.num_users, np.bool_) if is_sampled is None else is_sampled
    in_sample = is_sampled[truth.pair_user]
    of_sample = truth.keep_pairs(in_sample)
    truths: dict[Scope, Truth] = {scope: truth for scope in Scope if scope is not Scope.COLD}
    cells: dict[tuple[str, str], list[pa.Table]] = {}
    if cold is not None:
        of_cold = truths[Scope.COLD] = truth.keep_pairs(_are_cold(truth.pair_item, cold.is_cold))
        for one in cold.scorers:
            cells[one.name, Scope.COLD] = _count_scope(one.name, Scope.COLD, of_cold, _rank_cold(one, of_cold, ks[-1]), ks)
    for name, ranks in rank_scorers(scorers, truth, interacted, ks[-1], is_sampled):
        for scope in truths:
            if scope is not Scope.COLD:
                of_scope = ranks.in_scope(scope)
                counted, found = (of_sample, of_scope[in_sample]) if is_part(name) else (truth, of_scope)
                cells[name, scope] = _count_scope(name, scope, counted, found, ks)
        if name == MERGED and item_tier is not None:
            tiers = tiers_of_items(item_tier, truth.pair_item)
            for place, tier in enumerate(TIERS):
                inside, scope_name = tiers == place, tier_scope(tier)
                rows_of_tier = count_cell(
                    name, Scope.ALL, Population.ALL, truth.keep_pairs(inside), ranks.everything[inside], ks
                )
                labels = pa.repeat(scope_name, len(rows_of_tier))
                cells[name, scope_name] = [rows_of_tier.set_column(rows_of_tier.column_names.index(SCOPE), SCOPE, labels)]
    rows = [cell for key in sorted(cells) for cell in cells[key]]
    without = {
        f"{scope}/{population}": truth.num_users - len(np.unique(of.pair_user[of.pairs_in(scope, population)]))
        for scope, of in truths.items()
        for population in Population
    }
    return HitCounts(pa.concat_tables(rows), without)  # in one piece it would be in memory twice


def _are_cold(items: IntArray, is_cold: Mask) -> Mask:
    """Returns whether nobody interacted with these items before; -1, outside the corpus, is such an item."""
    return np.append(is_cold, True)[items]


def _rank_cold(scorer: Scorer, truth: Truth, k: int) -> IntArray:
    """Returns the rank of every truth pair [P], K if missed, in lists of cold items."""
    users, row = np.unique(truth.pair_user, return_inverse=True)
    ranks = np.full(len(row), k, np.int64)
    for start in range(0, len(users), scorer.block_size):
        pairs = np.flatnonzero((row >= start) & (row < start + scorer.block_size))
        top_items = scorer.top_items(users[start : start + scorer.block_size], k)
        ranks[pairs] = hit_ranks(top_items, row[pairs] - start, truth.pair_item[pairs])
    return ranks


def _count_scope(name: str, scope: Scope, truth: Truth, ranks: IntArray, ks: Sequence[int]) -> list[pa.Table]:
    return [count_cell(name, scope, population, truth, ranks, ks) for population in sorted(Population)]


def rank_scorers(
    scorers: Sequence[Scorer], truth: Truth, interacted: InteractedItems, k: int, is_sampled: Mask
) -> Iterator[tuple[str, RankedLists]]:
    """Yields each scorer's name and the ranks of `rank_truth`. Scorers of one block size rank the same users in turn.

    Large blocks come first: what others ask a model for in small ones is known then.
    """
    for _, group in groupby(sorted(scorers, key=lambda one: -one.block_size), key=lambda one: one.block_size):
        members = list(group)
        yield from zip((one.name for one in members), rank_truth(members, truth, interacted, k, is_sampled), strict=True)


def rank_truth(
    scorers: Sequence[Scorer], truth: Truth, interacted: InteractedItems, k: int, is_sampled: Mask
) -> list[RankedLists]:
    """Returns, for scorers of one block size, the rank of every truth pair, K if missed, in each kind of list.

    Users of the sample (bool [U]) are in blocks of their own, the only ones that scorers of parts rank.
    """
    ranks = [RankedLists(*(np.full(len(truth.pair_user), k) for _ in RankedLists._fields)) for _ in scorers]
    size = scorers[0].block_size
    all_scorers = list(zip(scorers, ranks, strict=True))
    whole_lists = [pair for pair in all_scorers if not is_part(pair[0].name)]
    for chosen, ranking in ((np.flatnonzero(is_sampled), all_scorers), (np.flatnonzero(~is_sampled), whole_lists)):
        for start in range(0, len(chosen), size):
            users = chosen[start : start + size]
            own, (block, pairs) = interacted.select_users(users), truth.select_users(users)
            is_different = _are_different(*own)[block.pair_user]  # few users have other items in all days than in the window
            for scorer, of_scorer in ranking:
                found = _rank_in_lists(scorer, users, block, own, is_different, k)
                for all_ranks, of_block in zip(of_scorer, found, strict=True):
                    all_ranks[pairs] = of_block
    return ranks


def _rank_in_lists(
    scorer: Scorer, users: IntArray, truth: Truth, own: InteractedItems, is_different: Mask, k: int
) -> RankedLists:
    """Returns the ranks of the truth pairs of a block by its lists.

    A pair is looked up only in lists in which its item may be: those without own items are made for users of whom the ranking has
    a pair, or has perhaps lost one to more own items than it has room for.
    """
    ranking, row, item = rank_items(scorer, users, own.history, k), truth.pair_user, truth.pair_item
    places, length = hit_ranks(ranking.items, row, item), ranking.items.shape[1]

    def rank_without(excluded: Exclusions, is_wanted: Mask) -> IntArray:
        ranks = np.full(len(row), k)
        pairs = np.flatnonzero(is_wanted & ((places < length) | (excluded.lengths[row] > length - k)))
        rows, place = np.unique(row[pairs], return_inverse=True)
        ranks[pairs] = hit_ranks(ranking.lists_without(excluded, rows), place, item[pairs])
        return ranks

    without_window = rank_without(own.window, ~truth.is_repeat)
    without_history = rank_without(own.history, is_different & ~truth.is_known)
    return RankedLists(
        np.minimum(places, k),
        without_window,
        np.where(truth.is_known | is_different, without_history, without_window),
    )


class Ranking(NamedTuple):
    """The first items of B users by one scorer, more than K."""

    scorer: Scorer
    users: IntArray
    """int64 [B], rows of the evaluated users."""
    items: IntArray
    """int64 [B, L], best first, -1 after the last."""
    k: int

    def lists_without(self, own: Exclusions, rows: IntArray) -> IntArray:
        """Returns int64 [R, K], the lists of the users in some rows, without each user's own items (of all B users)."""
        return _leave_out(self.scorer, self.users[rows], self.items[rows], own.select_users(rows), self.k)


def rank_items(scorer: Scorer, users: IntArray, history: Exclusions, k: int) -> Ranking:
    """Returns a ranking that gives the lists of all items, and those without each user's own items.

    A longer list without the own items begins with the best of the other items. It is longer by the number of own items that
    MOST_USERS have, at most by K. Users who lose more than that are ranked again.

    Args:
        users: rows of the evaluated users [B].
        history: their own items.
    """
    spare = min(int(np.quantile(history.lengths, MOST_USERS, method="higher")), k)
    return Ranking(scorer, users, scorer.top_items(users, k + spare), k)


def _are_different(one: Exclusions, other: Exclusions) -> Mask:
    """Returns bool [U], the users whose items are not the same in both, or not in the same order."""
    is_same = one.lengths == other.lengths
    rows = np.flatnonzero(is_same)
    left, right = one.select_users(rows), other.select_users(rows)
    is_same[rows[left.users[left.indices != right.indices]]] = False
    result: Mask = ~is_same
    return result


def _leave_out(scorer: Scorer, users: IntArray, ranked: IntArray, own: Exclusions, k: int) -> IntArray:
    """Returns int64 [B, K], the lists without the own items, from rankings [B, L].

    Users whose ranking is too short are ranked again, by the scorer without their items if it can do that. Otherwise their
    ranking is twice as long each time, up to K plus the number of their own items, which is always enough.
    """
    lists, is_short = _drop_items(ranked, own, k)
    rows, length = np.flatnonzero(is_short), ranked.shape[1]
    if len(rows) and isinstance(scorer, ExcludingScorer):
        lists[rows] = scorer.top_items_without(users[rows], k, own.select_users(rows))
        return lists
    while len(rows):
        length, short = min(2 * length, k + int(own.lengths[rows].max())), []
        step = max(1, MAX_ENTRIES // length)
        for part in np.split(rows, range(step, len(rows), step)):
            lists[part], is_short = _drop_items(scorer.top_items(users[part], length), own.select_users(part), k)
            short.append(part[is_short])
        rows = np.concatenate(short)
    return lists


def _drop_items(ranked: IntArray, dropped: Exclusions, k: int) -> tuple[IntArray, Mask]:
    """Returns the first k of each list without the dropped items, and whether the list was too short for that [B].

    A list that ends in -1 contains all that the scorer has to offer, so it is never too short.
    """
    is_kept = ~dropped.contains(np.arange(len(ranked))[:, None], ranked)
    return keep_first(ranked, is_kept, k), (is_kept.sum(axis=1) < k) & (ranked[:, -1] >= 0)


def hit_ranks(top_items: IntArray, pair_row: IntArray, pair_item: IntArray) -> IntArray:
    """Returns int64 [P]: the position (from 0) of each truth pair's item in the user's list, K if it is not there.

    Positions are those of the list as given: -1 is not an item, and a duplicate uses up a position.
    By hand: list [5, 7, -1]; items 7, 9 and -1 have ranks 1, 3 and 3.

    Args:
        top_items: int64 [B, K], -1 where there is no item.
        pair_row: int64 [P], row of the pair's user in top_items.
        pair_item: int64 [P], -1 for an item outside the corpus, which is never a hit.
    """
    k = top_items.shape[1]
    ranks = np.full(len(pair_row), k, dtype=np.int64)
    step = max(1, MAX_COMPARISONS // max(k, 1))
    for start in range(0, len(pair_row) if k else 0, step):
        item = pair_item[start : start + step, None]
        is_here = (top_items[pair_row[start : start + step]] == item) & (item >= 0)
        ranks[start : start + step] = np.where(is_here.any(axis=1), is_here.argmax(axis=1), k)
    return ranks


def count_cell(scorer: str, scope: Scope, population: Population, truth: Truth, ranks: IntArray, ks: Sequence[int]) -> pa.Table:
    """Returns the rows of hit_counts of one scorer, scope and population: one per user with truth there.

    Args:
        ranks: int64 [P], rank of each pair's item in its user's list, see `hit_ranks`.
    """
    pairs = truth.pairs_in(scope, population)
    truth_count = sums_per_user(truth, pairs)
    users = np.flatnonzero(truth_count)
    columns = {
        SCORER: pa.repeat(scorer, len(users)),
        SCOPE: pa.repeat(str(scope), len(users)),
        POPULATION: pa.repeat(str(population), len(users)),
        USER_ID: truth.user_ids.take(pa.array(users)),
        TRUTH_COUNT: pa.array(truth_count[users]),
    }
    columns |= {hits_column(k): pa.array(sums_per_user(truth, pairs & (ranks < k))[users]) for k in ks}
    user, rank = truth.pair_user[pairs], ranks[pairs]
    columns |= {ndcg_column(k): pa.array(user_ndcg(user, rank, truth_count, k)[users]) for k in ks}
    return pa.table(columns)


def sums_per_user(truth: Truth, pairs: Mask) -> IntArray:
    """Returns int64 [U], how many of the marked pairs each user has."""
    return np.bincount(truth.pair_user[pairs], minlength=truth.num_users).astype(np.int64)


def user_ndcg(pair_user: IntArray, ranks: IntArray, truth_count: IntArray, k: int) -> NDArray[np.float64]:
    """Returns NDCG@k with binary relevance of each user, float64 [U]: how far up in a list the user's items are; NaN without truth.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), section 2, with the logarithmic
    discount from the first place on that recommender systems use.

    DCG = sum over the user's items among the first k of 1 / log2(rank + 2), ranks from 0. NDCG = DCG / ideal DCG, which is
    that of a list that begins with min(k, truth count) of the user's items.

    By hand: k = 3, two items to find, one of them second in the list: DCG = 1 / log2(3) = .631, ideal 1 + .631 = 1.631, NDCG
    = .387. Were it first: 1 / 1.631 = .613.

    Args:
        pair_user: int64 [P], the user of each truth pair.
        ranks: int64 [P], place of the pair's item in the user's list, from 0; k or more if it is not there.
        truth_count: int64 [U], items of each user to find.
    """
    discounts = 1 / np.log2(np.arange(k) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(truth_count, k)]
    is_hit = ranks < k
    gained = np.bincount(pair_user[is_hit], weights=discounts[ranks[is_hit]], minlength=len(truth_count))
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = gained / ideal
    return result
