"""The truth table on a world small enough to fill in by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.core.evaluation.ground_truth import ground_truth
from dssm_assets.core.evaluation.specs import GROUND_TRUTH
from dssm_assets.core.schema import check_no_nulls, check_schema
from dssm_assets_tests.core.evaluation.worlds import pairs_table


def test_the_docstring_example() -> None:
    table = ground_truth(
        pairs_table([("u2", "a"), ("u1", "b"), ("u1", "a"), ("u1", "b")]), pairs_table([("u3", "a"), ("u1", "b"), ("u1", "b")])
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


def test_integer_ids_sort_as_numbers_and_keep_their_type() -> None:
    window = pairs_table([(7, 9)]).cast(pa.schema([("user_id", pa.int32()), ("item_id", pa.int32())]))
    table = ground_truth(pairs_table([(10, 100), (10, 9), (7, 9)]), window)
    assert table.column("user_id").to_pylist() == [7, 10]
    assert table.column("gt_items").to_pylist() == [[9], [9, 100]]
    assert table.column("gt_is_repeat").to_pylist() == [[True], [False, False]]
    assert table.schema.field("gt_items").type == pa.list_(pa.int64())


def test_an_empty_window_and_an_empty_day() -> None:
    nothing = pairs_table([])
    cold = ground_truth(pairs_table([("u", "a")]), nothing)
    assert cold.column("gt_is_warm").to_pylist() == [[False]]
    assert cold.column("is_warm_user").to_pylist() == [False]
    assert ground_truth(nothing, pairs_table([("u", "a")])).num_rows == 0


def test_bad_columns_are_named_at_once() -> None:
    bad = pa.table({"user_id": pa.array([1.5]), "item_id": pa.array([None], pa.string())})
    with pytest.raises(SchemaError) as error:
        ground_truth(bad, pairs_table([]))
    assert "column user_id: expected an integer or a string, got double" in str(error.value)
    assert "column item_id: expected no nulls, got 1 nulls" in str(error.value)
    with pytest.raises(InputError, match="ids of type string"):
        ground_truth(pairs_table([("1", "2")]), pairs_table([(1, 2)]))


PAIRS = st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcd")), max_size=12)


@given(PAIRS, PAIRS)
def test_flags_follow_from_membership(day: list[tuple[str, str]], window: list[tuple[str, str]]) -> None:
    table = ground_truth(pairs_table(day), pairs_table(window))
    assert table.column("user_id").to_pylist() == sorted({u for u, _ in day})
    for row in table.to_pylist():
        user = row["user_id"]
        assert row["gt_items"] == sorted({i for u, i in day if u == user})
        assert row["gt_is_warm"] == [any(i == item for _, i in window) for item in row["gt_items"]]
        assert row["gt_is_repeat"] == [(user, item) in window for item in row["gt_items"]]
        assert row["is_warm_user"] == any(u == user for u, _ in window)
