"""Hits: how many of a user's items are among the first k of the list that a scorer returns. Every hit rate is a sum of these.

A hit is a truth pair (user, item) whose item is among the first k items of the user's list, so a user's hits at k are
|set(list[:k]) & set(truth)|. `count_hits` reads top to bottom: lists, rank of every truth pair in them, counts per user.

A cell is one scope in one population, for example discovery x warm; every rate is reported per cell.

Does not belong here: rates and intervals (`rates.py`), lists for people to read (`detail.py`).

Shapes: U evaluated users, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import Exclusions, IntArray, Mask
from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.evaluation.evaluation_tables import hits_column
from dssm_assets.core.evaluation.scorer import Scorer, keep_first
from dssm_assets.core.evaluation.truth import Population, Scope, Truth

MOST_USERS: Final = 0.95
"""Fraction of a block's users for whom one ranking is long enough to drop their window items from."""
MAX_COMPARISONS: Final = 4_000_000
"""Pairs times list positions compared at once."""


@dataclass(frozen=True)
class HitCounts:
    """Hits of a run and who could not be counted.

    Attributes:
        table: scorer, scope, population, user_id, truth_count, hits_{k} per k; sorted by the first four. One row per scorer,
            scope, population and user with truth there.
        users_without_truth: "scope/population" -> evaluated users who have no truth there and therefore no row.
    """

    table: pa.Table
    users_without_truth: dict[str, int]


def count_hits(scorers: Sequence[Scorer], truth: Truth, window_items: Exclusions, ks: Sequence[int]) -> HitCounts:
    """Returns the hits at every k, one row per scorer, scope, population and user with truth there.

    The lists of scopes `all` and `repeat` are the same; those of `discovery` leave out the user's window items.

    By hand: k = 2, u interacted with a and b on the day and had a in the window, the list is a, c, b. Scope all: the first
    two are a, c, so 1 hit of 2. Discovery: the list without a is c, b, so 1 hit (b) of 1. Repeat: a is found, 1 of 1.

    Args:
        scorers: the model and the baselines, over the same corpus.
        truth: the evaluated users and their items.
        window_items: each evaluated user's items of the window.
        ks: cut-offs, ascending.
    """
    rows: list[pa.Table] = []
    for scorer in sorted(scorers, key=lambda one: one.name):
        ranks, discovery_ranks = rank_truth(scorer, truth, window_items, ks[-1])
        for scope in sorted(Scope):
            of_scope = discovery_ranks if scope is Scope.DISCOVERY else ranks
            for population in sorted(Population):
                rows.append(count_cell(scorer.name, scope, population, truth, of_scope, ks))
    without = {
        f"{scope}/{population}": truth.num_users - len(np.unique(truth.pair_user[truth.pairs_in(scope, population)]))
        for scope in Scope
        for population in Population
    }
    return HitCounts(pa.concat_tables(rows).combine_chunks(), without)


def rank_truth(scorer: Scorer, truth: Truth, window_items: Exclusions, k: int) -> tuple[IntArray, IntArray]:
    """Returns the rank of every truth pair, K if missed, in the lists of all items and in those without window items.

    Users are scored in blocks of `scorer.block_size`.
    """
    ranks, discovery_ranks = np.full(len(truth.pair_user), k), np.full(len(truth.pair_user), k)
    bounds = np.searchsorted(truth.pair_user, np.arange(truth.num_users + 1))
    for start in range(0, truth.num_users, scorer.block_size):
        users = np.arange(start, min(start + scorer.block_size, truth.num_users))
        pairs = slice(bounds[start], bounds[users[-1] + 1])
        lists, discovery_lists = rank_items(scorer, users, window_items.select_users(users), k)
        pair_row, pair_item = truth.pair_user[pairs] - start, truth.pair_item[pairs]
        ranks[pairs] = hit_ranks(lists, pair_row, pair_item)
        discovery_ranks[pairs] = hit_ranks(discovery_lists, pair_row, pair_item)
    return ranks, discovery_ranks


def rank_items(scorer: Scorer, users: IntArray, window_items: Exclusions, k: int) -> tuple[IntArray, IntArray]:
    """Returns the lists of all items and the lists without each user's window items, both int64 [B, K].

    One ranking serves both: a longer list without the window items begins with the best of the other items. It is longer by
    the number of window items that MOST_USERS have, at most by K. A user who loses more than that is ranked again.

    Args:
        scorer: gives the lists.
        users: rows of the evaluated users [B].
        window_items: of these users.
        k: K.
    """
    spare = min(int(np.quantile(window_items.lengths, MOST_USERS, method="higher")), k)
    ranked = scorer.top_items(users, k + spare)
    discovery, num_dropped = _drop_items(ranked, window_items, k)
    short = np.flatnonzero(num_dropped > spare)
    if len(short):
        theirs = window_items.select_users(short)
        longer = scorer.top_items(users[short], k + int(theirs.lengths.max()))
        discovery[short], _ = _drop_items(longer, theirs, k)
    return ranked[:, :k], discovery


def _drop_items(lists: IntArray, dropped: Exclusions, k: int) -> tuple[IntArray, IntArray]:
    """Returns the first k of each list without the dropped items, and how many each list lost."""
    width = int(max(lists.max(initial=0), dropped.indices.max(initial=0))) + 1
    rows = np.arange(len(lists))
    out = np.sort(np.repeat(rows, dropped.lengths) * width + dropped.indices)
    keys = rows[:, None] * width + lists
    is_dropped = np.zeros(lists.shape, dtype=bool)
    if len(out):
        is_dropped = (lists >= 0) & (out[np.minimum(np.searchsorted(out, keys), len(out) - 1)] == keys)
    return keep_first(lists, ~is_dropped, k), is_dropped.sum(axis=1)


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
        scorer: its name.
        scope: which of a user's items are to be found.
        population: which pairs count.
        truth: the evaluated users and their items.
        ranks: int64 [P], rank of each pair's item in its user's list, see `hit_ranks`.
        ks: cut-offs.
    """
    pairs = truth.pairs_in(scope, population)
    truth_count = sums_per_user(truth, pairs)
    users = np.flatnonzero(truth_count)
    columns = {
        SCORER: pa.array([scorer] * len(users), pa.string()),
        SCOPE: pa.array([str(scope)] * len(users), pa.string()),
        POPULATION: pa.array([str(population)] * len(users), pa.string()),
        USER_ID: truth.user_ids.take(pa.array(users)),
        TRUTH_COUNT: pa.array(truth_count[users]),
    }
    columns |= {hits_column(k): pa.array(sums_per_user(truth, pairs & (ranks < k))[users]) for k in ks}
    return pa.table(columns)


def sums_per_user(truth: Truth, pairs: Mask) -> IntArray:
    """Returns int64 [U], how many of the marked pairs each user has."""
    return np.bincount(truth.pair_user[pairs], minlength=truth.num_users).astype(np.int64)
