"""Scores vectors that a user brings, by the definitions of the pipeline: hit rates of user and item vectors against truth.

hit_rate@k = sum over users of |topk & truth| / sum over users of |truth|; user_recall, user_hit_rate, ndcg as in `rates.py`.
Who counts: every user with truth. A user without a vector gets an empty list: the user's truth counts and is missed. An item of the
truth without a vector is missed. Items that a user had seen before, if given, are neither candidates nor to be found (scope discovery).

By hand: u's list begins with a, c, the truth is a, b: hit_rate@2 = 1/2. If u had seen a, only b is to be found: 0/1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import find_positions, format_ids
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, offsets_of
from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.detail import list_columns
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.evaluation.hits import count_cell, hit_ranks
from dssm_assets.core.evaluation.rates import total_hit_rate
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.evaluation.truth import Truth, ground_truth, read_truth
from dssm_assets.core.retrieval.exact import BLOCK_SIZE, Corpus, search_interests
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.extras.external_vectors.external_vectors import VectorSet


@dataclass(frozen=True)
class ExternalSettings:
    """How external vectors are scored; cut-offs `ks` ascend."""

    ks: tuple[int, ...] = (10, 50, 100, 200)
    metric: Metric = Metric.IP
    bootstrap_samples: int = 1000
    seed: int = 17
    block_size: int = BLOCK_SIZE
    threads: int = 1


@dataclass(frozen=True)
class WhoCounted:
    """Who and what was counted and what was not.

    Attributes:
        scope: all, or discovery if seen pairs were given.
        users_counted: users with truth in the scope; all rates are over them. The truth of those without a vector is missed.
        users_whose_truth_was_seen: users without other truth; not counted, like users without truth.
        truth_pairs_outside_corpus: counted pairs whose item has no vector; they are missed.
        user_vectors: vectors of all users; more than users if some have several.
    """

    scope: str
    users_counted: int
    users_without_vector: int
    first_users_without_vector: str
    users_without_truth: int
    users_whose_truth_was_seen: int
    truth_pairs: int
    truth_rows_repeated: int
    truth_pairs_seen: int
    truth_pairs_outside_corpus: int
    corpus_items: int
    user_vectors: int
    dims: int


@dataclass(frozen=True)
class VectorEvaluation:
    """The rates, one row per k (hit_rate, ci_low, ci_high, user_recall, ...), and who was counted."""

    totals: pa.Table
    who: WhoCounted


def evaluate_vectors(
    users: VectorSet,
    items: VectorSet,
    truth_pairs: pa.Table,
    seen_pairs: pa.Table | None,
    settings: ExternalSettings,
    *,
    truth_rows: int | None = None,
    on_detail: Callable[[pa.Table], None] | None = None,
) -> VectorEvaluation:
    """Returns the rates of user vectors against item vectors and truth.

    Args:
        truth_pairs: distinct user_id, item_id, as of `read_pairs`.
        seen_pairs: distinct user_id, item_id of items that users had seen before.
        truth_rows: rows of the truth with repeated pairs.
        on_detail: receives the rows per user, block by block, users ascending; columns as of `detail.list_columns`.

    Raises:
        InputError: the tables do not fit each other, or no user has truth.
    """
    _check_fit(users, items, truth_pairs, seen_pairs)
    nothing = pa.table({USER_ID: users.ids.slice(0, 0), ITEM_ID: items.ids.slice(0, 0)})
    seen, scope = (nothing, Scope.ALL) if seen_pairs is None else (seen_pairs, Scope.DISCOVERY)
    counted = truth_pairs.join(seen, [USER_ID, ITEM_ID], join_type="left anti")
    if not counted.num_rows:
        got = "none" if not truth_pairs.num_rows else f"{truth_pairs.num_rows} pairs, all of them seen before"
        raise InputError(Fault("truth", "at least one user with truth", got, "give the pairs of the evaluated day"))
    truth, users_with_truth = read_truth(ground_truth(counted, nothing), items.ids), pc.unique(truth_pairs.column(USER_ID))
    ranks = _rank_truth(users, items, truth, _exclusions(seen, truth.user_ids, items.ids), settings, on_detail)
    hits = count_cell(MODEL, scope, Population.ALL, truth, np.ones(len(ranks), np.bool_), ranks, settings.ks)
    without = np.flatnonzero(find_positions(truth.user_ids, users.ids) < 0)
    who = WhoCounted(
        scope=str(scope),
        users_counted=truth.num_users,
        users_without_vector=len(without),
        first_users_without_vector=format_ids(truth.user_ids, without),
        users_without_truth=int((find_positions(users.ids, users_with_truth) < 0).sum()),
        users_whose_truth_was_seen=len(users_with_truth) - truth.num_users,
        truth_pairs=truth_pairs.num_rows,
        truth_rows_repeated=(truth_rows or truth_pairs.num_rows) - truth_pairs.num_rows,
        truth_pairs_seen=truth_pairs.num_rows - counted.num_rows,
        truth_pairs_outside_corpus=int((truth.pair_item < 0).sum()),
        corpus_items=len(items.ids),
        user_vectors=len(users.vectors),
        dims=items.vectors.shape[1],
    )
    return VectorEvaluation(total_hit_rate(hits, settings.ks, settings.bootstrap_samples, settings.seed), who)


def _rank_truth(
    users: VectorSet,
    items: VectorSet,
    truth: Truth,
    excluded: Exclusions,
    settings: ExternalSettings,
    on_detail: Callable[[pa.Table], None] | None,
) -> IntArray:
    """Returns the rank of every truth pair (int64 [P], K if missed), from lists that are made block by block."""
    corpus, k = Corpus(items.vectors, settings.metric, items.ids, is_checked=True), settings.ks[-1]
    vector_row = find_positions(truth.user_ids, users.ids)
    ranks, step = [], settings.block_size * max(settings.threads, 1)
    for start in range(0, truth.num_users, step):
        rows = np.arange(start, min(start + step, truth.num_users))
        top_items = np.full((len(rows), k), -1, dtype=np.int64)
        top_scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        with_vector = np.flatnonzero(vector_row[rows] >= 0)
        vectors, bounds = users.select(vector_row[rows[with_vector]])
        top_items[with_vector], top_scores[with_vector] = search_interests(
            corpus,
            vectors,
            bounds,
            k,
            excluded=excluded.select_users(rows[with_vector]),
            block_size=settings.block_size,
            threads=settings.threads,
            is_checked=True,
        )
        block = truth.users_from(start, start + len(rows))
        ranks.append(hit_ranks(top_items, block.pair_user, block.pair_item))
        if on_detail is not None:
            on_detail(pa.table(list_columns(top_items, top_scores, block, ranks[-1], items.ids)))
    return np.concatenate(ranks)


def _exclusions(seen: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> Exclusions:
    """Returns the items that each user had seen; other users and items are skipped."""
    owner, item = find_positions(seen.column(USER_ID), user_ids), find_positions(seen.column(ITEM_ID), item_ids)
    known = (owner >= 0) & (item >= 0)
    width = max(len(item_ids), 1)
    pairs = np.unique(owner[known] * width + item[known])
    counts = np.bincount(pairs // width, minlength=len(user_ids))
    return Exclusions(offsets_of(counts), pairs % width)


def _check_fit(users: VectorSet, items: VectorSet, truth: pa.Table, seen: pa.Table | None) -> None:
    faults = []
    remedy = "read all tables from one source"
    for name, table in (("truth", truth), ("seen", seen)):
        for column, ids in ((USER_ID, users.ids), (ITEM_ID, items.ids)):
            if table is not None and table.column(column).type != ids.type:
                where = f"{name}, column {column}"
                faults.append(
                    Fault(where, f"ids of type {ids.type}, as the vectors have", str(table.column(column).type), remedy)
                )
    widths = users.vectors.shape[1], items.vectors.shape[1]
    if widths[0] != widths[1]:
        got = f"users {widths[0]}, items {widths[1]} numbers"
        faults.append(Fault("vectors", "users and items of one width", got, "take both from the same model"))
    InputError.raise_if(faults)
