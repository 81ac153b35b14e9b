"""Counts hits: items of a user's truth among the first k of a scorer's list. Every hit rate is computed from these counts.

From top to bottom: the ranks of truth pairs in lists, counts per user, the model's lists with hits and misses.

A truth pair is a user and an item to find. A cell is one scope in one population, for example discovery x warm. Every rate is
reported per cell.

Shapes: U evaluated users, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray, Mask, build_lists, offsets_of, row_blocks
from dssm_assets.core.columns import IS_WARM_USER, POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.evaluation.evaluation_tables import MERGED, hits_column, is_part, ndcg_column, tier_scope
from dssm_assets.core.evaluation.scorer import InteractedItems, RankedLists, Scorer, rank_items
from dssm_assets.core.evaluation.segments import TIERS, Cuts, segment_column, tier_columns, tiers_of_items
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.retrieval.exact import Scores

BLOCK_USERS: Final = 128
"""Users in a block. All scorers rank a block before the next one is read."""
MAX_COMPARISONS: Final = 4_000_000
"""At most so many (pair, list position) combinations are compared at once."""


class ColdScope(NamedTuple):
    """The cold items (without any earlier event), and the scorers for scope `cold`."""

    items: IntArray
    """item_index int64 [C]."""
    scorers: Sequence[Scorer]
    """Rank cold items only."""


def count_hits(
    scorers: Sequence[Scorer],
    truth: Truth,
    interacted: InteractedItems,
    ks: Sequence[int],
    cold: ColdScope | None = None,
    is_sampled: Mask | None = None,
    item_tier: IntArray | None = None,
    on_ranked: Callable[[int], None] = lambda users: None,
) -> tuple[pa.Table, dict[str, int]]:
    """Returns the rows of hit_counts, and "scope/population" -> number of evaluated users without truth there.

    There is a row per scorer, scope, population and user with truth there, with hits and NDCG at every k. The merged list's hits
    are also counted by tier of items (`tier_scope`), in population `all`. An item outside the corpus is not warm.

    By hand: k = 2, the ranking is a, d, c, b. The truth is a, b and d; a is in the window, a and d are in the history. Scope all:
    the first two are a and d, so 2 hits of 3. Discovery: the list without a is d, c, so 1 hit (d) of 2 (b, d). Repeat: a is
    found, 1 of 1. New: b is not among the first two, 0 of 1. Unseen: the list without a and d is c, b, so 1 of 1.

    Args:
        ks: cut-offs, ascending.
        cold: the items and scorers of scope `cold`. None: without this scope.
        is_sampled: bool [U], marks users for whom parts of the merged list (`evaluation_tables.is_part`) are scored. None: all.
        item_tier: int64 [I], position of each item's tier in TIERS. None: tiers are not counted.
        on_ranked: called with the number of users of each block.
    """
    is_sampled = np.ones(truth.num_users, np.bool_) if is_sampled is None else is_sampled
    to_find = truth.pairs_by_scope(interacted.history)
    cells: dict[tuple[str, str, str], pa.Table] = {}

    def count_scope(scorer: str, scope: Scope, pairs: Mask, ranks: IntArray) -> None:
        for population in Population:
            in_cell = pairs & truth.pairs_of(population)
            cells[scorer, scope, population] = count_cell(scorer, scope, population, truth, in_cell, ranks, ks)

    for name, ranks in rank_truth(scorers, truth, interacted, ks[-1], is_sampled, on_ranked).items():
        is_ranked = is_sampled[truth.pair_user] | (not is_part(name))
        for scope, pairs in to_find.items():
            count_scope(name, scope, pairs & is_ranked, ranks.in_scope(scope))
        if name == MERGED and item_tier is not None:
            tiers = tiers_of_items(item_tier, truth.pair_item)
            for number, tier in enumerate(TIERS):
                cell = (name, tier_scope(tier), Population.ALL)
                cells[cell] = count_cell(*cell, truth, tiers == number, ranks.everything, ks)
    if cold is not None:
        to_find[Scope.COLD] = is_cold = (truth.pair_item < 0) | np.isin(truth.pair_item, cold.items)
        for one in cold.scorers:
            count_scope(one.name, Scope.COLD, is_cold, _rank_pairs(one, truth, is_cold, ks[-1]))
    without = {
        f"{scope}/{population}": truth.num_users - len(np.unique(truth.pair_user[pairs & truth.pairs_of(population)]))
        for scope, pairs in to_find.items()
        for population in Population
    }
    return pa.concat_tables(cells[key] for key in sorted(cells)), without


def rank_truth(
    scorers: Sequence[Scorer], truth: Truth, past: InteractedItems, k: int, is_sampled: Mask, on_ranked: Callable[[int], None]
) -> Mapping[str, RankedLists]:
    """Returns scorer -> rank of every truth pair in each kind of list, int64 [P]; K for a missed pair."""
    ranks = {one.name: RankedLists(*(np.full(len(truth.pair_user), k) for _ in RankedLists._fields)) for one in scorers}
    # Scorers of parts rank sampled users only, so these users are in blocks of their own.
    for in_sample in (True, False):
        for users in _split_blocks(np.flatnonzero(is_sampled == in_sample)):
            own, (block, pairs) = past.select_users(users), truth.select_users(users)
            for scorer in scorers:
                if in_sample or not is_part(scorer.name):
                    for lists, found in zip(rank_items(scorer, users, own, k), ranks[scorer.name], strict=True):
                        found[pairs] = hit_ranks(lists, block.pair_user, block.pair_item)
            on_ranked(len(users))
    return ranks


def _rank_pairs(scorer: Scorer, truth: Truth, is_wanted: Mask, k: int) -> IntArray:
    """Returns each wanted truth pair's rank in the list of all items, int64 [P]; K if it is missed, and for other pairs."""
    ranks = np.full(len(truth.pair_user), k)
    for users in _split_blocks(np.unique(truth.pair_user[is_wanted])):
        block, pairs = truth.select_users(users)
        ranks[pairs] = hit_ranks(scorer.top_items(users, k), block.pair_user, block.pair_item)
    return ranks


def _split_blocks(users: IntArray) -> Iterator[IntArray]:
    return (users[rows] for rows in row_blocks(len(users), BLOCK_USERS))


def hit_ranks(top_items: IntArray, pair_row: IntArray, pair_item: IntArray) -> IntArray:
    """Returns the position (from 0) of each truth pair's item in its user's list, int64 [P]; K if it is not there.

    A duplicate in the list uses up a position, and -1 is no item. By hand: in the list [5, 7, -1] the items 7, 9 and -1 have
    ranks 1, 3 and 3.

    Args:
        top_items: int64 [B, K], -1 where there is no item.
        pair_row: int64 [P], row of the pair's user in top_items.
        pair_item: int64 [P], -1 for an item outside the corpus, which is never a hit.
    """
    k = top_items.shape[1]
    ranks = np.full(len(pair_row), k)
    step = max(1, MAX_COMPARISONS // k)
    for start in range(0, len(pair_row), step):
        item = pair_item[start : start + step, None]
        is_here = (top_items[pair_row[start : start + step]] == item) & (item >= 0)
        ranks[start : start + step] = np.where(is_here.any(axis=1), is_here.argmax(axis=1), k)
    return ranks


def count_cell(
    scorer: str, scope: str, population: str, truth: Truth, pairs: Mask, ranks: IntArray, ks: Sequence[int]
) -> pa.Table:
    """Returns the rows of hit_counts for one scorer, scope and population: one per user with truth there.

    Args:
        pairs: bool [P], marks the truth of this cell.
        ranks: int64 [P], rank of each pair's item in its user's list, see `hit_ranks`.
    """
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
    """Counts the marked pairs of each user, int64 [U]."""
    return np.bincount(truth.pair_user[pairs], minlength=truth.num_users).astype(np.int64)


def user_ndcg(pair_user: IntArray, ranks: IntArray, truth_count: IntArray, k: int) -> NDArray[np.float64]:
    """Returns each user's NDCG@k with binary relevance, float64 [U]; NaN without truth.


    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), section 2. As usual for recommender
    systems, the logarithmic discount starts at the first position.

    DCG = sum of 1 / log2(rank + 2) over the user's items among the first k, ranks from 0. NDCG = DCG / ideal DCG. The ideal
    list begins with min(k, truth count) of the user's items.

    By hand: k = 3, two items to find. The list has one, at its second position: DCG = 1 / log2(3) = .631, ideal DCG
    = 1 + .631 = 1.631, NDCG = .387. If it is at the first position, NDCG = 1 / 1.631 = .613.

    Args:
        pair_user: int64 [P], the user of each truth pair.
        ranks: int64 [P], position of the pair's item in the user's list, from 0; k or more if it is not there.
        truth_count: int64 [U], number of each user's items to find.
    """
    discounts = 1 / np.log2(np.arange(k) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(truth_count, k)]
    is_hit = ranks < k
    gained = np.bincount(pair_user[is_hit], weights=discounts[ranks[is_hit]], minlength=len(truth_count))
    with np.errstate(invalid="ignore"):
        return np.asarray(gained / ideal)


def hit_rate_detail(top_items: IntArray, top_scores: Scores, truth: Truth, cuts: Cuts, *, item_ids: pa.Array) -> pa.Table:
    """Returns one row per user with truth, from given lists.

    The columns of `list_columns` come first, then warm_hits and warm_truth_count, counted over warm items of warm users. The
    headline hit rate is sum(warm_hits) / sum(warm_truth_count). Every segment of users has a column segment_{name}. With tiers of
    items, hits_{tier} and truth_count_{tier} add up to hits and truth_count. An item outside the corpus has the tier unseen.

    Args:
        top_items: int64 [U, K], -1 where there is none.
        top_scores: float32 [U, K].
        truth: the evaluated users, one per row of the lists.
        cuts: segments of these users and tiers of the items.
    """
    ranks = hit_ranks(top_items, truth.pair_user, truth.pair_item)
    found = ranks < top_items.shape[1]
    columns = {
        **list_columns(top_items, top_scores, truth, ranks, item_ids),
        "warm_hits": pa.array(sums_per_user(truth, truth.is_warm & found)),
        "warm_" + TRUTH_COUNT: pa.array(sums_per_user(truth, truth.is_warm)),
        IS_WARM_USER: pa.array(truth.is_warm_user),
    }
    columns |= {segment_column(name): labels for name, labels in cuts.users.items()}
    if cuts.item_tier is not None:
        tiers = tiers_of_items(cuts.item_tier, truth.pair_item)
        for index, tier in enumerate(TIERS):
            hits_in, truth_in = tier_columns(tier)
            columns[hits_in] = pa.array(sums_per_user(truth, found & (tiers == index)))
            columns[truth_in] = pa.array(sums_per_user(truth, tiers == index))
    return pa.table(columns)


def list_columns(
    top_items: IntArray, top_scores: Scores, truth: Truth, ranks: IntArray, item_ids: pa.Array
) -> dict[str, pa.Array]:
    """Returns user_id, topk_ids, topk_scores, hit_ids, bad_ids, hits, truth_count and hit_rate, one row per user.

    topk_ids: the list's items in order. hit_ids: its items in the user's truth. bad_ids: its other items. hit_rate = hits / truth_count.

    By hand: list [d, a, b], truth b, d, z: hit_ids [d, b], bad_ids [a], hits 2, truth_count 3, hit_rate 2/3.

    Args:
        top_items: int64 [U, K], distinct within a row, -1 where there is none.
        top_scores: float32 [U, K].
        truth: the users, one per row of the lists.
        ranks: int64 [P], from `hit_ranks`.
    """
    is_item, is_hit = top_items >= 0, np.zeros(top_items.shape, dtype=bool)
    found = ranks < top_items.shape[1]
    is_hit[truth.pair_user[found], ranks[found]] = True
    hits, truth_count = sums_per_user(truth, found), sums_per_user(truth, np.ones_like(found))

    def ids(mask: Mask) -> pa.Array:
        return build_lists(item_ids.take(pa.array(top_items[mask])), offsets_of(mask.sum(axis=1)))

    return {
        USER_ID: truth.user_ids,
        "topk_ids": ids(is_item),
        "topk_scores": build_lists(pa.array(top_scores[is_item], pa.float32()), offsets_of(is_item.sum(axis=1))),
        "hit_ids": ids(is_hit),
        "bad_ids": ids(is_item & ~is_hit),
        "hits": pa.array(hits),
        TRUTH_COUNT: pa.array(truth_count),
        "hit_rate": pa.array(hits / truth_count),
    }
