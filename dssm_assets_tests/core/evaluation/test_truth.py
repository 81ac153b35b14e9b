"""The truth table: its flags, its pairs as arrays, samples of its users; wrong tables are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.evaluation_tables import GROUND_TRUTH
from dssm_assets.core.evaluation.truth import ground_truth, read_truth, sample_users
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.schema import check_no_nulls, check_schema
from dssm_assets_tests.core.evaluation.worlds import pairs_table

BOOLS = pa.list_(pa.bool_())


def table(rows: list[tuple[str, list[str] | None, list[bool] | None, list[bool] | None, bool]]) -> pa.Table:
    users, items, warm, repeat, is_warm = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users),
            "gt_items": pa.array(items, pa.list_(pa.string())),
            "gt_is_warm": pa.array(warm, BOOLS),
            "gt_is_repeat": pa.array(repeat, BOOLS),
            "is_warm_user": pa.array(is_warm),
        }
    )


def test_read_truth_keeps_unknown_items() -> None:
    truth = read_truth(
        table(
            [
                ("v", ["a", "b", "z"], [False, True, True], [False, False, True], True),
                ("u", [], [], [], True),
                ("t", None, None, None, False),
                ("w", ["a"], [True], [True], False),
            ]
        ),
        pa.array(["b", "a"]),
    )
    assert truth.user_ids.to_pylist() == ["t", "u", "v", "w"]
    assert truth.pair_user.tolist() == [2, 2, 2, 3]
    assert truth.pair_item.tolist() == [1, 0, -1, 1]  # a, b, z of v; a of w
    assert truth.is_warm.tolist() == [False, True, True, False]
    found = truth.pairs_by_scope(ItemSets(np.array([0, 0, 0, 1, 1]), np.array([0])))  # v also took b, long ago
    assert found[Scope.REPEAT].tolist() == [False, False, True, True]
    assert found[Scope.DISCOVERY].tolist() == [True, True, False, False]
    assert found[Scope.NEW].tolist() == found[Scope.UNSEEN].tolist() == [True, False, False, False]
    assert truth.pairs_by_scope(ItemSets.empty(4))[Scope.NEW].tolist() == [True, True, False, False]
    assert truth.pairs_of(Population.WARM).tolist() == [False, True, True, False]
    assert truth.pairs_of(Population.NOT_WARM).tolist() == [True, False, False, True]
    part = truth.select_users(np.array([3]))[0]
    assert (part.user_ids.to_pylist(), part.pair_user.tolist(), part.pair_item.tolist()) == (["w"], [0], [1])
    some, places = truth.select_users(np.array([0, 2]))
    assert (some.user_ids.to_pylist(), some.is_warm_user.tolist()) == (["t", "v"], [False, True])
    assert (some.pair_user.tolist(), some.is_warm.tolist(), places.tolist()) == ([1, 1, 1], [False, True, True], [0, 1, 2])


def test_item_ids_of_another_type_are_refused() -> None:
    row = ("u", ["a"], [True], [False], True)
    with pytest.raises(InputError, match="ids of type int64"):
        read_truth(table([row]), pa.array([1]))


def test_ground_truth_example_of_the_docstring() -> None:
    table = ground_truth(
        pairs_table([("u2", "a"), ("u1", "b"), ("u1", "a"), ("u1", "b")]),
        [pairs_table([("u3", "a"), ("u1", "b"), ("u1", "b")])],
    )
    assert table.to_pylist() == [
        {
            "user_id": "u1",
            "gt_items": ["a", "b"],
            "gt_is_warm": [True, True],
            "gt_is_repeat": [False, True],
            "is_warm_user": True,
        },
        {"user_id": "u2", "gt_items": ["a"], "gt_is_warm": [True], "gt_is_repeat": [False], "is_warm_user": False},
    ]
    check_schema(GROUND_TRUTH, table.schema)
    check_no_nulls(GROUND_TRUTH, table)


def test_ids_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="ids of type string"):
        ground_truth(pairs_table([("1", "2")]), [pairs_table([(1, 2)])])


PAIRS = st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcd")), max_size=12)


@given(PAIRS, PAIRS)
def test_warm_and_repeat_flags_equal_set_membership(day: list[tuple[str, str]], window: list[tuple[str, str]]) -> None:
    table = ground_truth(pairs_table(day), [pairs_table(window)])
    assert table.column("user_id").to_pylist() == sorted({u for u, _ in day})
    for row in table.to_pylist():
        user = row["user_id"]
        assert row["gt_items"] == sorted({i for u, i in day if u == user})
        assert row["gt_is_warm"] == [any(i == item for _, i in window) for item in row["gt_items"]]
        assert row["gt_is_repeat"] == [(user, item) in window for item in row["gt_items"]]
        assert row["is_warm_user"] == any(u == user for u, _ in window)


def truth(ids: list[object], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"user_id": pa.array(ids, kind), "row": range(len(ids))})


def chosen(table: pa.Table, count: int | None, seed: int = 17) -> list[object]:
    return sample_users(table, count, seed).column("user_id").to_pylist()


@given(ids=st.lists(st.integers(0, 10**12), unique=True, max_size=60), count=st.integers(1, 30), seed=st.integers(0, 5))
def test_sample_has_the_requested_size_and_keeps_rows_in_order(ids, count, seed):
    table = truth(sorted(ids), pa.int64())
    found = sample_users(table, count, seed)
    rows = found.column("row").to_pylist()
    assert found.num_rows == min(count, len(ids))
    assert rows == sorted(set(rows))
    assert found.equals(table.take(pa.array(rows, pa.int64())))


def test_sample_depends_on_the_seed_and_not_on_the_id_type():
    numbers, texts = truth(list(range(100)), pa.int64()), truth([str(n) for n in range(100)])
    assert [str(user) for user in chosen(numbers, 20)] == chosen(texts, 20)
    assert chosen(numbers, 20) == chosen(numbers, 20)
    assert chosen(numbers, 20, seed=1) != chosen(numbers, 20, seed=2)
