"""The comparison of engines ignores the order of rows and rounding, and nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dssm_assets_tests.extras.spark.comparison import assert_same_rows

ROWS: dict[str, list[Any]] = {"id": ["a", "b", "b"], "rate": [0.1, None, 2.5], "list": [[1.0], [], None], "n": [1, 2, 3]}


def changed(name: str, row: int, value: Any) -> pa.Table:
    values = list(ROWS[name])
    values[row] = value
    return pa.table({**ROWS, name: values}, schema=pa.table(ROWS).schema)


@pytest.mark.parametrize(
    "same", [pa.table(ROWS).take(pa.array([2, 0, 1])), changed("rate", 2, 2.500001), changed("list", 0, [1.0000005])]
)
def test_equal_tables_may_differ_in_order_and_rounding(same: pa.Table) -> None:
    assert_same_rows(pa.table(ROWS), same, "t")


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("id", 0, "c"),
        ("rate", 2, 2.50001),
        ("rate", 1, 0.0),
        ("list", 0, [1.1]),
        ("list", 2, []),
        ("n", 1, 4),
    ],
)
def test_a_wrong_value_is_found(name: str, row: int, value: Any) -> None:
    with pytest.raises(AssertionError, match="t, "):
        assert_same_rows(pa.table(ROWS), changed(name, row, value), "t")


def test_other_rows_or_types_are_found() -> None:
    table = pa.table(ROWS)
    with pytest.raises(AssertionError):
        assert_same_rows(table, table.slice(1), "t")
    with pytest.raises(AssertionError):
        assert_same_rows(table, table.set_column(3, "n", pa.array([1, 2, 3], pa.int32())), "t")
