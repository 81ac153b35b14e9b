"""Hits per user: the rows every hit rate is a sum over.

Belongs here: counting hits of any scorer in every scope and population. Does not belong here: rates and intervals
(`totals.py`), lists for people to read (`detail.py`).

Shapes: U evaluated users, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.columns import USER_ID
from dssm_assets.core.evaluation.places import Asked, Places
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.evaluation.truth import Mask, Population, Scope, Truth

SCORER, SCOPE, POPULATION, TRUTH_COUNT = "scorer", "scope", "population", "truth_count"


def hits_column(k: int) -> str:
    """Returns the name of the column with the hits among the first k."""
    return f"hits_{k}"


@dataclass(frozen=True)
class HitCounts:
    """Hits of a run and who could not be counted.

    Attributes:
        table: scorer, scope, population, user_id, truth_count, hits_{k} per k; sorted by the first four.
        users_without_truth: "scope/population" -> evaluated users that have no truth there and so no rows.
    """

    table: pa.Table
    users_without_truth: dict[str, int]


def scorer_places(scorer: Scorer, truth: Truth, taken: Exclusions, k: int) -> Places:
    """Returns the place of every truth pair, K if missed, asking the scorer block by block."""
    bounds = np.searchsorted(truth.pair_user, np.arange(truth.num_users + 1))
    found = []
    for start in range(0, truth.num_users, scorer.block_size):
        users = np.arange(start, min(start + scorer.block_size, truth.num_users))
        pairs = slice(bounds[start], bounds[users[-1] + 1])
        asked = Asked(users, truth.pair_user[pairs] - start, truth.pair_item[pairs], taken.select_users(users))
        found.append(scorer.places(asked, k))
    nothing = np.zeros(0, dtype=np.int64)
    free, fresh = (np.concatenate([nothing, *column]) for column in (zip(*found, strict=True) if found else ((), ())))
    return Places(free, fresh)


def count_hits(scorers: Sequence[Scorer], truth: Truth, taken_in_window: Exclusions, ks: Sequence[int]) -> HitCounts:
    """Returns hits per scorer, scope, population and user, at every k in one pass.

    The lists of `all` and `repeat` are the same; those of `discovery` leave out what the user took in the window. A user
    without truth in a cell has no row there.

    Args:
        scorers: the model and the baselines; all are asked for the same users.
        truth: the evaluated users and what they took.
        taken_in_window: the window's items of each evaluated user.
        ks: ascending.
    """
    rows: list[pa.Table] = []
    for scorer in sorted(scorers, key=lambda one: str(one.name)):
        free, fresh = scorer_places(scorer, truth, taken_in_window, ks[-1])
        for scope in sorted(Scope):
            ranks = fresh if scope is Scope.DISCOVERY else free
            rows += [cell(str(scorer.name), scope, population, truth, ranks, ks) for population in sorted(Population)]
    without = {
        f"{scope}/{population}": truth.num_users - len(np.unique(truth.pair_user[truth.pairs_in(scope, population)]))
        for scope in Scope
        for population in Population
    }
    return HitCounts(pa.concat_tables(rows).combine_chunks(), without)


def sums_per_user(truth: Truth, pairs: Mask) -> IntArray:
    """Returns int64 [U], how many of the marked pairs each user has."""
    return np.bincount(truth.pair_user[pairs], minlength=truth.num_users).astype(np.int64)


def cell(scorer: str, scope: Scope, population: Population, truth: Truth, ranks: IntArray, ks: Sequence[int]) -> pa.Table:
    """Returns the rows of hit_counts of one scorer, scope and population: one per user with truth there.

    Args:
        scorer: its name.
        scope: which of a user's items are asked for.
        population: which pairs count.
        truth: the evaluated users and what they took.
        ranks: int64 [P], place of each pair's item in its user's list, as of `hit_ranks`.
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
