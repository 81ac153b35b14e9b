"""Small worlds and a slow, independent way to count in them, for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines.registry import baseline_scorers, fit_baselines
from dssm_assets.core.evaluation.interactions import Interactions, sum_interactions
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.evaluation.truth import Truth, ground_truth, read_truth
from dssm_assets.core.names import Scope
from dssm_assets.testing import fit_data


def pairs_table(pairs: Sequence[tuple[Any, Any]], id_type: pa.DataType | None = None) -> pa.Table:
    kind = id_type or (pa.int64() if pairs and isinstance(pairs[0][0], int) else pa.string())
    return pa.table({"user_id": pa.array([u for u, _ in pairs], kind), "item_id": pa.array([i for _, i in pairs], kind)})


def events_table(rows: Sequence[tuple[Any, Any, int, int]], id_type: pa.DataType | None = None) -> pa.Table:
    table = pairs_table([(u, i) for u, i, _, _ in rows], id_type)
    table = table.append_column("count", pa.array([c for _, _, c, _ in rows], pa.int64()))
    return table.append_column("last_event_time_ms", pa.array([t for _, _, _, t in rows], pa.int64()))


def read_interactions(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> Interactions:
    """Returns the interactions of a table; its users who are not among user_ids follow them."""
    users = [*user_ids.to_pylist(), *sorted({*table.column("user_id").to_pylist()} - {*user_ids.to_pylist()})]
    return sum_interactions([table], pa.array(users, user_ids.type), IdIndex(item_ids))


def interactions(rows: Sequence[tuple[str, str, int, int]], users: Sequence[str], items: Sequence[str]) -> Interactions:
    return read_interactions(events_table(rows, pa.string()), pa.array(users, pa.string()), pa.array(items, pa.string()))


@dataclass
class FixedScorer:
    """Gives the lists that it was made with, -1 after their end."""

    lists: IntArray
    name: str = "model"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        result = np.full((len(user_rows), k), -1, dtype=np.int64)
        width = min(k, self.lists.shape[1])
        result[:, :width] = self.lists[user_rows, :width]
        return result


def fitted_scorers(window: Interactions, recent: Interactions, history: Interactions, settings: Evaluation) -> list[Scorer]:
    """Returns every baseline, fitted on the window and its last days, for the users of these interactions."""
    data = fit_data(window, recent, history, settings)
    return baseline_scorers(fit_baselines(data), window, history)


def truth_of(day: Sequence[tuple[Any, Any]], window: Sequence[tuple[Any, Any]], corpus: Sequence[Any]) -> Truth:
    kind = pa.int64() if corpus and isinstance(corpus[0], int) else pa.string()
    return read_truth(ground_truth(pairs_table(day, kind), [pairs_table(window, kind)]), pa.array(corpus, kind))


def define_hits(
    ranking: Sequence[Any], truth: set[Any], window: set[Any], history: set[Any], scope: Scope, k: int
) -> tuple[int, int]:
    """Returns the hits of one user, and the items to find, by the definition of a scope other than cold.

    Args:
        ranking: all items, best first.
        truth: what the user interacted with on the day.
        window: what the user interacted with in the window before it.
        history: the same on all days before it.
    """
    to_find = {Scope.ALL: truth, Scope.REPEAT: truth & window, Scope.DISCOVERY: truth - window}.get(scope, truth - history)
    not_offered = {Scope.DISCOVERY: window, Scope.UNSEEN: history}.get(scope, set())
    offered = [item for item in ranking if item not in not_offered]
    return len(to_find & set(offered[:k])), len(to_find)


def slow_hits(
    lists: Mapping[Any, Sequence[Any]],
    day: Sequence[tuple[Any, Any]],
    window: Sequence[tuple[Any, Any]],
    older: Sequence[tuple[Any, Any]] = (),
    *,
    scope: str,
    population: str,
    k: int,
) -> dict[Any, tuple[int, int]]:
    """Returns user -> (truth, hits) by the definition; lists hold ids, None where empty."""
    warm_users, warm_items = {u for u, _ in window}, {i for _, i in window}
    result = {}
    for user in {u for u, _ in day}:
        is_warm = {item: user in warm_users and item in warm_items for u, item in day if u == user}
        truth = {item for item, warm in is_warm.items() if population == "all" or warm == (population == "warm")}
        seen, known = ({i for u, i in pairs if u == user} for pairs in (window, [*window, *older]))
        hits, count = define_hits(lists.get(user, []), truth, seen, known, Scope(scope), k)
        if count:
            result[user] = (count, hits)
    return result


def total_row(
    scorer: str = "model",
    scope: str = "all",
    population: str = "warm",
    *,
    k: int = 10,
    hit_rate: float = 0.5,
    half_width: float = 0.05,
) -> dict[str, Any]:
    """Returns a row of total_hit_rate over 40 users with 200 items to find."""
    return {
        "scorer": scorer, "scope": scope, "population": population, "k": k, "hit_rate": hit_rate,
        "ci_low": max(0.0, hit_rate - half_width), "ci_high": hit_rate + half_width, "user_recall": hit_rate,
        "user_hit_rate": hit_rate, "ndcg": hit_rate / 2, "ndcg_ci_low": hit_rate / 3, "ndcg_ci_high": hit_rate, "users": 40, "hits": round(200 * hit_rate), "truth_count": 200,
    }  # fmt: skip
