"""The evaluation of vectors against a count by plain sets and sorted tuples, on hostile worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.external_vectors import (
    EvaluationSettings,
    VectorEvaluation,
    VectorSet,
    evaluate_vectors,
    read_pairs,
    read_vectors,
    reference_detail,
    reference_total,
)
from dssm_assets.core.retrieval.metrics import Metric

Vectors = dict[Any, list[list[int]]]
NESTED = pa.list_(pa.list_(pa.float32()))


def vectors(given_vectors: Vectors, column: str) -> VectorSet:
    ids = pa.array(list(given_vectors), pa.int64() if isinstance(next(iter(given_vectors)), int) else pa.string())
    table = pa.table({column: ids, "vector": pa.array(list(given_vectors.values()), NESTED)})
    return read_vectors(table, column, column, may_have_several=True)


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
    wanted = EvaluationSettings(**{"bootstrap_samples": 20, "ks": (1, 2, 5), **chosen})
    blocks: list[pa.Table] = []
    result = evaluate_vectors(
        vectors(users, "user_id"),
        vectors({item: [vector] for item, vector in items.items()}, "item_id"),
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


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(IDS), st.lists(VECTOR, min_size=1, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(ITEMS), VECTOR, min_size=1),
    PAIRS,
    st.none() | PAIRS,
    st.sampled_from([Metric.IP, Metric.L2]),
    st.integers(1, 3),
)
def test_rates_equal_sets_and_sorted_tuples(
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
        assert row["hitrate"] == pytest.approx(row["hits"] / row["truth_count"])
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


def test_a_world_by_hand() -> None:
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


def test_a_user_that_has_seen_everything_gets_nothing() -> None:
    seen = [("u", item) for item in "abc"]
    result, detail = evaluate({"u": [[1, 0]], "v": [[1, 0]]}, AXES, [("u", "new"), ("v", "a")], seen, ks=(3,))
    assert [row["topk_ids"] for row in detail.to_pylist()] == [[], ["a", "c", "b"]]
    assert result.totals.column("hit_rate").to_pylist() == [0.5]
    with pytest.raises(InputError, match="got 1 pairs, all of them seen before"):
        evaluate({"u": [[1, 0]]}, AXES, [("u", "a")], seen)
    with pytest.raises(InputError, match="truth: expected at least one user with truth, got none"):
        evaluate({"u": [[1, 0]]}, AXES, [])


def test_the_seed_decides_the_interval_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    users = {f"u{i}": [rng.integers(1, 9, 2).tolist()] for i in range(40)}
    items = {f"i{i}": rng.integers(1, 9, 2).tolist() for i in range(30)}
    truth = [(f"u{rng.integers(40)}", f"i{rng.integers(30)}") for _ in range(90)]
    one, same, other = (
        evaluate(users, items, truth, bootstrap_samples=200, seed=seed, threads=threads, block_size=7)[0].totals
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    assert one.equals(same)
    assert one.drop_columns(["ci_low", "ci_high"]).equals(other.drop_columns(["ci_low", "ci_high"]))
    assert not one.equals(other)


def test_tables_that_do_not_fit_are_told_all_at_once() -> None:
    users = vectors({1: [[1, 0]]}, "user_id")
    items = vectors({"a": [[1, 0, 0]]}, "item_id")
    with pytest.raises(InputError) as error:
        evaluate_vectors(users, items, pairs([("1", "a")], pa.string()), pairs([(1, 2)], pa.int64()), EvaluationSettings())
    text = str(error.value)
    assert text.startswith("3 faults:")
    assert "truth, column user_id: expected ids of type int64, as the vectors have, got string" in text
    assert "seen, column item_id: expected ids of type string, as the vectors have, got int64" in text
    assert "got users 2, items 3 numbers" in text


LIST, NESTED = pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32()))


def read(rows: list[Any], kind: pa.DataType = LIST, ids: Any = None, *, may_have_several: bool = True) -> VectorSet:
    ids = pa.array([f"u{i}" for i in range(len(rows))]) if ids is None else ids
    table = pa.table({"user_id": ids, "vector": pa.array(rows, kind)})
    return read_vectors(table, "user_id", "user vectors", may_have_several=may_have_several)


def faults_of(*arguments: Any, **named: Any) -> str:
    with pytest.raises(InputError) as error:
        read(*arguments, **named)
    return str(error.value)


@pytest.mark.parametrize(
    "kind",
    [
        LIST,
        pa.list_(pa.float64()),
        pa.list_(pa.int64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.decimal128(5, 2)),
    ],
    ids=str,
)
def test_any_list_of_numbers_is_a_vector(kind: pa.DataType) -> None:
    rows = (
        [[1, 2], [3, 4], [5, 6]]
        if not pa.types.is_float16(kind.value_type)
        else pa.array([[1, 2], [3, 4], [5, 6]], LIST).cast(kind)
    )
    found = read(rows, kind)
    assert found.vectors.dtype == "float32"
    assert found.vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.bounds.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "kind", [NESTED, pa.large_list(pa.list_(pa.float64(), 2)), pa.list_(pa.large_list(pa.int32()))], ids=str
)
def test_a_list_of_lists_is_several_vectors_also_in_slices_and_chunks(kind: pa.DataType) -> None:
    rows = pa.array([[[9, 9]], [[1, 2], [3, 4]], [[5, 6]], [[7, 8], [1, 1], [2, 2]]], kind)
    chunked = pa.chunked_array([rows.slice(1, 1), rows.slice(2, 2)])
    table = pa.table({"user_id": pa.array([3, 1, 2]), "vector": chunked})
    found = read_vectors(table, "user_id", "user vectors", may_have_several=True)
    assert found.bounds.tolist() == [0, 2, 3, 6]
    assert found.vectors.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [1, 1], [2, 2]]
    vectors, bounds = found.take([2, 0])
    assert (vectors.tolist(), bounds.tolist()) == ([[7, 8], [1, 1], [2, 2], [1, 2], [3, 4]], [0, 3, 5])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, 2], pa.uint16()), pa.int64()),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
    ],
    ids=str,
)
def test_ids_come_in_one_of_two_types(ids: pa.Array, expected: pa.DataType) -> None:
    assert read([[1], [2]], ids=ids).ids.type == expected


def test_every_kind_of_unusable_vector_is_named() -> None:
    assert "1 of 3 without: u1" in faults_of([[1.0], None, [2.0]])
    assert "1 of 3 rows with nulls: u2" in faults_of([[1.0, 1.0], [1.0, 1.0], [None, 1.0]])
    assert "vectors of one width, mostly 2, got 1 of 3 of other widths: u0" in faults_of([[1.0], [1.0, 1.0], [2.0, 1.0]])
    assert "at least one number" in faults_of([[], []])
    text = faults_of([[float("nan")], [0.0], [float("inf")], [1.0]])
    assert "2 of 4 not finite (NaN or infinity): u0, u2" in text
    assert "1 of 4 all zeros: u1" in text
    assert "1 of 2 not finite" in faults_of([[1e300], [1.0]], pa.list_(pa.float64()))  # too large for float32
    nested = faults_of([[[1.0, 2.0], None], [[0.0, 0.0]], [], None], NESTED)
    assert "2 of 4 without: u2, u3" in nested
    assert "1 of 4 rows with nulls: u0" in nested
    assert "1 of 3 all zeros: u1" in faults_of([[[1.0], [2.0]], [[0.0]]], NESTED)


def test_what_is_no_vector_at_all() -> None:
    assert "got string" in faults_of(["1,2"], pa.string())
    assert "got list<element: bool>" in faults_of([[True]], pa.list_(pa.bool_())).replace("item:", "element:")
    assert "expected list, large_list or fixed_size_list of numbers, got" in faults_of(
        [[[1.0]]], NESTED, may_have_several=False
    )


def test_all_faults_of_a_table_at_once() -> None:
    text = faults_of([[1.0], [0.0], [2.0]], ids=pa.array(["a", "a", "b"]))
    assert "1 ids more than once: a" in text
    assert "1 of 3 all zeros: a" in text
    text = faults_of([[0.0], [1.0]], ids=pa.array([0.5, 1.5]))
    assert "an integer or a string, got double" in text
    assert "1 of 2 all zeros: 1" in text  # without usable ids, rows are counted from 1
    assert "1 nulls in 2 rows" in faults_of([[1.0], [1.0]], ids=pa.array(["a", None]))
    assert "ids that fit int64" in faults_of([[1.0]], ids=pa.array([2**64 - 1], pa.uint64()))
    with pytest.raises(InputError) as error:
        read_vectors(pa.table({"uid": [1]}), "user_id", "user vectors", may_have_several=True)
    assert str(error.value).startswith("2 faults:\nuser vectors, column user_id: expected the column to exist, got uid")
    with pytest.raises(InputError, match="at least one row"):
        read([])


def test_pairs_are_distinct_and_checked() -> None:
    table = pa.table({"x": [0] * 4, "item_id": pa.array([7, 7, 8, 7], pa.int32()), "user_id": ["a", "a", "a", "b"]})
    found = read_pairs(table, "truth")
    assert found.to_pydict() == {"user_id": ["a", "a", "b"], "item_id": [7, 8, 7]}
    with pytest.raises(InputError) as error:
        read_pairs(pa.table({"user_id": pa.array(["a", None])}), "truth")
    assert "2 faults" in str(error.value) and "column item_id" in str(error.value) and "1 nulls" in str(error.value)


IDS_REFERENCE_LAYOUT = pa.list_(pa.int64())
DETAIL = pa.table(
    {
        "user_id": pa.array([5, 6, 7]),
        "topk_ids": pa.array([[30, 10, 20], [], [10, 30]], IDS_REFERENCE_LAYOUT),
        "topk_scores": pa.array([[-0.0, -0.25, -4.0], [], [-1e-7, -2.0]], pa.list_(pa.float32())),
        "hit_ids": pa.array([[10], [], [10, 30]], IDS_REFERENCE_LAYOUT),
        "hits": pa.array([1, 0, 2]),
        "truth_count": pa.array([2, 1, 2]),
        "hitrate": pa.array([0.5, 0.0, 1.0]),
    }
)


def test_distances_of_l2_are_squared_distances() -> None:
    assert reference_detail(DETAIL, Metric.L2).to_pydict() == {
        "id": ["5", "6", "7"],
        "topk_ids": ["30,10,20", "", "10,30"],
        "topk_dists": ["0,0.25,4", "", "1e-7,2"],
        "hitrate": [0.5, 0.0, 1.0],
        "bad_ids": ["30,20", "", ""],
        "bad_dists": ["0,4", "", ""],
    }


def test_distances_of_inner_product_are_similarities_and_slices_read_right() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["c", "a", "b"], [], ["a", "c"]]))
    text = text.set_column(3, "hit_ids", pa.array([["a"], [], ["a", "c"]]))
    assert reference_detail(text.slice(0, 1), Metric.IP).to_pylist() == [
        {"id": "5", "topk_ids": "c,a,b", "topk_dists": "0,-0.25,-4", "hitrate": 0.5, "bad_ids": "c,b", "bad_dists": "0,-4"}
    ]
    # One user's hit is not another's.
    assert reference_detail(text.slice(2, 1), Metric.IP).column("bad_ids").to_pylist() == [""]


def test_the_total_is_micro() -> None:
    assert reference_total(DETAIL).to_pydict() == {"hitrate": [3 / 5]}
    with pytest.raises(InputError, match="at least one item to find"):
        reference_total(DETAIL.slice(0, 0))


def test_a_comma_in_an_id_is_refused() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["a,b"], [], []]))
    with pytest.raises(InputError, match="1 with commas, first a,b"):
        reference_detail(text, Metric.IP)
