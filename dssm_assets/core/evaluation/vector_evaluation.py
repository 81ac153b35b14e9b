"""The evaluation of anybody's vectors: the same definitions as the pipeline's, from three tables.

Belongs here: who is counted, the search block by block, the rates. Does not belong here: reading and checking the tables
(`vector_sets.py`), files (`steps/`), layouts of other tools (`reference_layout.py`).

hit_rate@k = sum over users of |topk & truth| / sum over users of |truth|, user_recall and user_hit_rate as in `totals.py`.
Who counts: every user with truth. One without a vector gets an empty list: its truth counts and is missed. A user without
truth does not count. An item of the truth that has no vector counts as missed. What a user had seen before, where that is
given, is neither a candidate nor asked for (scope discovery): what may not be found must not be missed.

Shapes: U users with truth, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.ground_truth import ground_truth
from dssm_assets.core.evaluation.hit_counts import cell
from dssm_assets.core.evaluation.ids import positions, shown
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.totals import total_hit_rate
from dssm_assets.core.evaluation.truth import Mask, Population, Scope, Truth, read_truth
from dssm_assets.core.evaluation.vector_lists import EvaluationSettings, VectorLists
from dssm_assets.core.evaluation.vector_sets import VectorSet
from dssm_assets.core.retrieval.exclusions import Exclusions


@dataclass(frozen=True)
class WhoCounted:
    """Who and what was counted, and what was not and why.

    Attributes:
        scope: all, or discovery where seen pairs were given.
        users_counted: users with truth in the scope; all rates are over them.
        users_without_vector: of these, users without a vector: their truth counts and is missed.
        first_users_without_vector: some of them.
        users_without_truth: users with a vector and no truth at all: not counted.
        users_whose_truth_was_seen: users all of whose truth was seen before: not counted.
        truth_pairs: distinct pairs of the truth.
        truth_rows_repeated: rows of the truth that said a pair again: counted once.
        truth_pairs_seen: pairs of the truth that were seen before: not counted.
        truth_pairs_outside_corpus: pairs counted whose item has no vector: they are missed.
        corpus_items: candidates.
        user_vectors: vectors of all users; more than users where some have several.
        dims: width of the vectors.
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
    settings: EvaluationSettings,
    *,
    truth_rows: int | None = None,
    on_detail: Callable[[pa.Table], None] | None = None,
) -> VectorEvaluation:
    """Returns the rates of user vectors against item vectors and truth.

    Args:
        users: vectors of users, several each if need be.
        items: the corpus, one vector each.
        truth_pairs: user_id, item_id, as of `read_pairs`.
        seen_pairs: user_id, item_id of what users had seen before, or None.
        settings: cut-offs, metric, bootstrap.
        truth_rows: rows of the truth before repeated ones were dropped.
        on_detail: is given the rows per user, block by block, users ascending.

    Raises:
        InputError: if the tables do not fit each other or nobody has truth.
    """
    _check_fit(users, items, truth_pairs, seen_pairs)
    seen = pa.table({USER_ID: users.ids.slice(0, 0), ITEM_ID: items.ids.slice(0, 0)}) if seen_pairs is None else seen_pairs
    truth = read_truth(ground_truth(truth_pairs, seen), items.ids)
    scope = Scope.ALL if seen_pairs is None else Scope.DISCOVERY
    asked = _of_pairs(truth, truth.pairs_in(scope, Population.ALL))
    if not len(asked.pair_user):
        got = "none" if not truth_pairs.num_rows else f"{truth_pairs.num_rows} pairs, all of them seen before"
        raise InputError(Fault("truth", "at least one user with truth", got, "give the pairs of the evaluated day"))
    search = VectorLists(users, items, asked, _exclusions(seen, asked.user_ids, items.ids), settings)
    ranks = search.ranks(on_detail)
    hits = cell(ScorerName.MODEL, scope, Population.ALL, asked, ranks, settings.ks)
    totals = total_hit_rate(hits, settings.ks, settings.bootstrap_samples, settings.seed)
    without = np.flatnonzero(search.vector_row < 0)
    who = WhoCounted(
        scope=str(scope),
        users_counted=asked.num_users,
        users_without_vector=len(without),
        first_users_without_vector=shown(asked.user_ids, without),
        users_without_truth=int((positions(users.ids, truth.user_ids) < 0).sum()),
        users_whose_truth_was_seen=truth.num_users - asked.num_users,
        truth_pairs=len(truth.pair_user),
        truth_rows_repeated=(truth_pairs.num_rows if truth_rows is None else truth_rows) - len(truth.pair_user),
        truth_pairs_seen=len(truth.pair_user) - len(asked.pair_user),
        truth_pairs_outside_corpus=int((asked.pair_item < 0).sum()),
        corpus_items=len(items.ids),
        user_vectors=len(users.vectors),
        dims=items.vectors.shape[1],
    )
    return VectorEvaluation(totals, who)


def _of_pairs(truth: Truth, pairs: Mask) -> Truth:
    """Returns the truth of the marked pairs alone, and of the users that have any."""
    users, owner = np.unique(truth.pair_user[pairs], return_inverse=True)
    return Truth(
        user_ids=truth.user_ids.take(pa.array(users)),
        is_warm_user=truth.is_warm_user[users],
        pair_user=owner.astype(np.int64),
        pair_item=truth.pair_item[pairs],
        is_warm=truth.is_warm[pairs],
        is_repeat=truth.is_repeat[pairs],
    )


def _exclusions(seen: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> Exclusions:
    """Returns what each of the users had seen; users and items that are not among ours are passed over."""
    owner, item = positions(seen.column(USER_ID), user_ids), positions(seen.column(ITEM_ID), item_ids)
    known = (owner >= 0) & (item >= 0)
    width = max(len(item_ids), 1)
    pairs = np.unique(owner[known] * width + item[known])
    counts = np.bincount(pairs // width, minlength=len(user_ids))
    return Exclusions(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), pairs % width)


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
    if faults:
        raise InputError(faults)
