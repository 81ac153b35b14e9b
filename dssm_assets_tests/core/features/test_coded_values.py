"""Coded values: what a column's values are, and that rows count as often as they are used."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.coded_values import ONCE, CodedValues, Uses

INF, NAN = float("inf"), float("nan")
hashes = st.one_of(st.none(), st.sampled_from([-(2**63), -1, 0, 5, 2**63 - 1]))
numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, NAN, -3.0, INF, -INF]))
bags = st.one_of(st.none(), st.lists(hashes, max_size=3))
columns = st.one_of(
    st.lists(hashes, max_size=8).map(lambda rows: pa.array(rows, pa.int64())),
    st.lists(numbers, max_size=8).map(lambda rows: pa.array(rows, pa.float32())),
    st.lists(bags, max_size=8).map(lambda rows: pa.array(rows, pa.list_(pa.int64()))),
    st.lists(st.one_of(st.none(), st.lists(bags, max_size=3)), max_size=6).map(
        lambda rows: pa.array(rows, pa.list_(pa.list_(pa.int64())))
    ),
)


def counted(column: Any, uses: Uses = ONCE) -> list[tuple[Any, int]]:
    values, counts = CodedValues.of(column).counted(uses)
    return list(zip(values.to_pylist(), counts.tolist(), strict=True))


def values_of(row: Any, depth: int) -> list[Any]:
    """Returns the values of one row, the slow way: an innermost list without any is one missing value."""
    if depth == 0:
        return [None if row is None or math.isnan(row) else row + 0]
    if depth == 1:
        return [value for item in row or [None] for value in values_of(item, 0)]
    return [value for item in row or [] for value in values_of(item, depth - 1)]


def depth_of(kind: pa.DataType) -> int:
    return 1 + depth_of(kind.value_type) if pa.types.is_list(kind) else 0


def test_by_hand() -> None:
    assert counted(pa.array([7, None, -2, 7], pa.int64())) == [(-2, 1), (7, 2), (None, 1)]
    assert counted(pa.array([0.5, NAN, -0.0, 0.0, None], pa.float32())) == [(0.0, 2), (0.5, 1), (None, 2)]
    assert counted(pa.array([[3, 3], [], None, [None, 1]], pa.list_(pa.int64()))) == [(1, 1), (3, 2), (None, 3)]


def test_rows_count_as_often_as_they_are_used() -> None:
    uses = Uses(np.array([2, 0, 5]), without=4)
    assert counted(pa.array([9, 8, None], pa.int64()), uses) == [(9, 2), (None, 9)]
    # Row 0 has 1 and 2, row 1 is not used, row 2 has nothing.
    assert counted(pa.array([[1, 2], [3], []], pa.list_(pa.int64())), uses) == [(1, 2), (2, 2), (None, 9)]
    assert Uses(np.array([0, 3, 0, 1])).used[0].tolist() == [1, 3]  # type: ignore[index]


def test_nothing_is_used_and_nothing_is_there() -> None:
    assert counted(pa.array([9], pa.int64()), Uses(np.array([0]))) == []
    assert counted(pa.array([], pa.list_(pa.int64())), Uses(np.zeros(0, np.int64), without=2)) == [(None, 2)]
    assert counted(pa.chunked_array([], pa.float32())) == []


@pytest.mark.parametrize("count", [255, 256, 257, 65_536])
def test_codes_are_as_wide_as_the_number_of_values_asks_for(count: int) -> None:
    coded = CodedValues.of(pa.array([*range(count), None], pa.int64()))
    assert coded.codes.dtype == (np.uint8 if count == 255 else np.uint16 if count < 65_536 else np.uint32)
    assert coded.codes.tolist() == list(range(count + 1))


@given(columns, st.data())
def test_equals_counting_row_by_row(column: pa.Array, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(column), max_size=len(column)))
    without = data.draw(st.integers(0, 2))
    expected: Counter[Any] = Counter({None: without})
    for row, count in zip(column.to_pylist(), counts, strict=True):
        expected.update(values_of(row, depth_of(column.type)) * count)
    found = counted(column, Uses(np.array(counts, np.int64), without))
    assert dict(found) == {value: count for value, count in expected.items() if count}
    present = [value for value, _ in found if value is not None]
    assert present == sorted(present)
    assert None not in [value for value, _ in found[:-1]]
