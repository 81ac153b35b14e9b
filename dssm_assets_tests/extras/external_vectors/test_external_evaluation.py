"""The evaluation of external vectors equals a count by sets and sorted tuples; the reference's layout by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.extras.external_vectors.external_evaluation import (
    ExternalSettings,
    VectorEvaluation,
    VectorSet,
    evaluate_vectors,
    read_pairs,
    read_vectors,
    reference_detail,
)

Vectors = dict[Any, list[list[int]]]
NESTED = pa.list_(pa.list_(pa.float32()))


def vectors(given_vectors: dict[Any, Any], column: str) -> VectorSet:
    ids = pa.array(list(given_vectors), pa.int64() if isinstance(next(iter(given_vectors)), int) else pa.string())
    kind = NESTED if column == "user_id" else NESTED.value_type
    lists = pa.array(list(given_vectors.values()), kind)
    return read_vectors(pa.table({column: ids, f"{column[:4]}_tower_emb": lists}), column, column)


def pairs(rows: Sequence[tuple[Any, Any]], kind: pa.DataType) -> pa.Table:
    table = pa.table({"user_id": pa.array([u for u, _ in rows], kind), "item_id": pa.array([i for _, i in rows], kind)})
    return read_pairs(table, "pairs")


def evaluate(
    users: Vectors,
    items: dict[Any, list[int]],
    truth: Sequence[tuple[Any, Any]],
    seen: Sequence[tuple[Any, Any]] | None = None,
    **chosen: Any,
) -> tuple[VectorEvaluation, pa.Table]:
    kind = pa.int64() if isinstance(next(iter(users)), int) else pa.string()
    wanted = ExternalSettings(**{"bootstrap_samples": 20, "ks": (1, 2, 5), **chosen})
    blocks: list[pa.Table] = []
    result = evaluate_vectors(
        vectors(users, "user_id"),
        vectors(items, "item_id"),
        pairs(truth, kind),
        None if seen is None else pairs(seen, kind),
        wanted,
        truth_rows=len(truth),
        on_detail=blocks.append,
    )
    return result, pa.concat_tables(blocks)


def slow_score(user: list[int], item: list[int], metric: Metric) -> int:
    if metric is Metric.L2:
        return -sum((a - b) ** 2 for a, b in zip(user, item, strict=True))
    return sum(a * b for a, b in zip(user, item, strict=True))


def slow(
    users: Vectors, items: dict[Any, list[int]], truth: set[tuple[Any, Any]], seen: set[tuple[Any, Any]], metric: Metric, k: int
) -> dict[Any, tuple[list[Any], set[Any]]]:
    """Returns user -> (list, truth) straight from the definition; items tie in the order of the corpus."""
    result = {}
    for user in sorted({u for u, _ in truth - seen}):
        free = [(place, item) for place, item in enumerate(items) if (user, item) not in seen]
        best = sorted(
            (-max(slow_score(one, items[item], metric) for one in users[user]), place, item)
            for place, item in free
            if user in users
        )
        result[user] = ([item for _, _, item in best[:k]], {i for u, i in truth - seen if u == user})
    return result


VECTOR = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)
IDS, ITEMS = [3, 1, 2, 9], [30, 10, 20, 50, 40, 60]
PAIRS = st.lists(st.tuples(st.sampled_from([*IDS, 77, 78]), st.sampled_from([*ITEMS, 98, 99])), max_size=25)


@given(
    st.dictionaries(st.sampled_from(IDS), st.lists(VECTOR, min_size=1, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(ITEMS), VECTOR, min_size=1),
    PAIRS,
    st.none() | PAIRS,
    st.sampled_from([Metric.IP, Metric.L2]),
    st.integers(1, 3),
)
def test_external_rates_equal_sets_and_sorted_tuples(
    users: Vectors,
    items: dict[int, list[int]],
    truth: list[tuple[int, int]],
    seen: list[tuple[int, int]] | None,
    metric: Metric,
    block: int,
) -> None:
    expected = slow(users, items, set(truth), set(seen or []), metric, 5)
    if not expected:
        with pytest.raises(InputError, match="at least one user with truth"):
            evaluate(users, items, truth, seen, metric=metric)
        return
    result, detail = evaluate(users, items, truth, seen, metric=metric, block_size=block)
    rows = detail.to_pylist()
    assert [row["user_id"] for row in rows] == list(expected)
    for row, (best, wanted) in zip(rows, expected.values(), strict=True):
        assert row["topk_ids"] == best
        assert row["hit_ids"] == [item for item in best if item in wanted]
        assert row["bad_ids"] == [item for item in best if item not in wanted]
        assert (row["hits"], row["truth_count"]) == (len(set(best) & wanted), len(wanted))
        assert row["hit_rate"] == pytest.approx(row["hits"] / row["truth_count"])
        assert len(row["topk_scores"]) == len(best)
    for row in result.totals.to_pylist():
        hits = [len(set(best[: row["k"]]) & wanted) for best, wanted in expected.values()]
        counts = [len(wanted) for _, wanted in expected.values()]
        assert (row["hits"], row["truth_count"], row["users"]) == (sum(hits), sum(counts), len(counts))
        assert row["hit_rate"] == pytest.approx(sum(hits) / sum(counts))
        assert row["user_recall"] == pytest.approx(float(np.mean(np.array(hits) / np.array(counts))))
        assert row["user_hit_rate"] == pytest.approx(sum(hit > 0 for hit in hits) / len(hits))
        assert row["ci_low"] <= row["hit_rate"] <= row["ci_high"] or len(hits) > 1
    who, distinct = result.who, set(truth)
    assert who.users_counted == len(expected)
    assert who.users_without_vector == len(set(expected) - set(users))
    assert who.users_without_truth == len(set(users) - {u for u, _ in distinct})
    assert who.users_whose_truth_was_seen == len({u for u, _ in distinct} - set(expected))
    assert (who.truth_pairs, who.truth_rows_repeated) == (len(distinct), len(truth) - len(distinct))
    assert who.truth_pairs_seen == len(distinct & set(seen or []))
    assert who.truth_pairs_outside_corpus == sum(item not in items for _, item in distinct - set(seen or []))


AXES = {"a": [1, 0], "b": [0, 1], "c": [1, 1]}


def test_external_rates_by_hand() -> None:
    # u's list by inner product is a, c (tie of 1, corpus order), b; v has no vector; w has no truth.
    result, detail = evaluate(
        {"u": [[1, 0]], "w": [[0, 1]]}, AXES, [("u", "c"), ("u", "c"), ("u", "zzz"), ("v", "a")], ks=(1, 2)
    )
    first, second = result.totals.to_pylist()
    assert (first["hit_rate"], first["hits"], first["truth_count"]) == (0, 0, 3)
    assert (second["hit_rate"], second["hits"]) == (pytest.approx(1 / 3), 1)
    assert (second["user_recall"], second["user_hit_rate"], second["users"]) == (0.25, 0.5, 2)
    # Resamples of users: {u, u} 2/4, {u, v} 1/3, {v, v} 0/2.
    assert (second["ci_low"], second["ci_high"]) == (0, 0.5)
    assert [row["topk_ids"] for row in detail.to_pylist()] == [["a", "c"], []]
    assert result.who.first_users_without_vector == "v"
    assert result.who.scope == "all"


def test_a_user_who_has_seen_every_item_gets_an_empty_list() -> None:
    seen = [("u", item) for item in "abc"]
    result, detail = evaluate({"u": [[1, 0]], "v": [[1, 0]]}, AXES, [("u", "new"), ("v", "a")], seen, ks=(3,))
    assert [row["topk_ids"] for row in detail.to_pylist()] == [[], ["a", "c", "b"]]
    assert result.totals.column("hit_rate").to_pylist() == [0.5]
    with pytest.raises(InputError, match="got 1 pairs, all of them seen before"):
        evaluate({"u": [[1, 0]]}, AXES, [("u", "a")], seen)
    with pytest.raises(InputError, match="truth: expected at least one user with truth, got none"):
        evaluate({"u": [[1, 0]]}, AXES, [])


def test_the_seed_changes_only_the_interval() -> None:
    rng = np.random.default_rng(0)
    users = {f"u{i}": [rng.integers(1, 9, 2).tolist()] for i in range(40)}
    items = {f"i{i}": rng.integers(1, 9, 2).tolist() for i in range(30)}
    truth = [(f"u{rng.integers(40)}", f"i{rng.integers(30)}") for _ in range(90)]
    one, same, other = (
        evaluate(users, items, truth, bootstrap_samples=200, seed=seed, threads=threads, block_size=7)[0].totals
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    assert one.equals(same)
    bounds = ["ci_low", "ci_high", "ndcg_ci_low", "ndcg_ci_high"]
    assert one.drop_columns(bounds).equals(other.drop_columns(bounds))
    assert not one.equals(other)


def test_tables_that_do_not_fit_are_reported_together() -> None:
    users = vectors({1: [[1, 0]]}, "user_id")
    items = vectors({"a": [1, 0, 0]}, "item_id")
    with pytest.raises(InputError) as error:
        evaluate_vectors(users, items, pairs([("1", "a")], pa.string()), pairs([(1, 2)], pa.int64()), ExternalSettings())
    text = str(error.value)
    assert text.startswith("3 faults:")
    assert "truth, column user_id: expected ids of type int64, as the vectors have, got string" in text
    assert "seen, column item_id: expected ids of type string, as the vectors have, got int64" in text
    assert "got users 2, items 3 numbers" in text


ID_LISTS = pa.list_(pa.int64())
DETAIL = pa.table(
    {
        "user_id": pa.array([5, 6, 7]),
        "topk_ids": pa.array([[30, 10, 20], [], [10, 30]], ID_LISTS),
        "topk_scores": pa.array([[-0.0, -0.25, -4.0], [], [-1e-7, -2.0]], pa.list_(pa.float32())),
        "hit_ids": pa.array([[10], [], [10, 30]], ID_LISTS),
        "hits": pa.array([1, 0, 2]),
        "truth_count": pa.array([2, 1, 2]),
        "hit_rate": pa.array([0.5, 0.0, 1.0]),
    }
)


def test_l2_scores_become_squared_distances() -> None:
    assert reference_detail(DETAIL, Metric.L2).to_pydict() == {
        "id": ["5", "6", "7"],
        "topk_ids": ["30,10,20", "", "10,30"],
        "topk_dists": ["0,0.25,4", "", "1e-7,2"],
        "hitrate": [0.5, 0.0, 1.0],
        "bad_ids": ["30,20", "", ""],
        "bad_dists": ["0,4", "", ""],
    }


def test_inner_products_stay_similarities_and_slices_are_read() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["c", "a", "b"], [], ["a", "c"]]))
    text = text.set_column(3, "hit_ids", pa.array([["a"], [], ["a", "c"]]))
    assert reference_detail(text.slice(0, 1), Metric.IP).to_pylist() == [
        {"id": "5", "topk_ids": "c,a,b", "topk_dists": "0,-0.25,-4", "hitrate": 0.5, "bad_ids": "c,b", "bad_dists": "0,-4"}
    ]
    # One user's hit is not another's.
    assert reference_detail(text.slice(2, 1), Metric.IP).column("bad_ids").to_pylist() == [""]


def test_an_id_with_a_comma_is_refused() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["a,b"], [], []]))
    with pytest.raises(InputError, match="1 with commas, first a,b"):
        reference_detail(text, Metric.IP)
