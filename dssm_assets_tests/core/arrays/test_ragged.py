"""Lists as flat values and offsets, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays import ragged
from dssm_assets_tests.core.arrays.item_sets import item_sets

rows = st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4)), max_size=8)


@given(rows, st.integers(0, 8), st.sampled_from([pa.list_(pa.int64()), pa.large_list(pa.int64())]))
def test_build_lists_inverts_flatten_also_on_slices(
    values: list[list[int] | None], start: int, arrow_type: pa.DataType
) -> None:
    array = pa.array(values, arrow_type)[start:]
    flat, offsets = ragged.flatten(array)
    assert ragged.build_lists(flat, offsets, ragged.null_mask(array)).to_pylist() == values[start:]
    assert ragged.build_lists(flat, offsets).to_pylist() == [row or [] for row in values[start:]]


@given(rows)
def test_filter_values_filters_inside_each_row(values: list[list[int] | None]) -> None:
    flat, offsets = ragged.flatten(pa.array(values, pa.list_(pa.int64())))
    kept = ragged.filter_values(flat, offsets, flat.to_numpy(zero_copy_only=False) % 2 == 0)
    assert ragged.build_lists(*kept).to_pylist() == [[number for number in row or [] if number % 2 == 0] for row in values]


def test_flatten_skips_values_hidden_under_null_lists() -> None:
    array = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    flat, offsets = ragged.flatten(array)
    assert (flat.to_pylist(), offsets.tolist()) == ([1, 2, 3, 4], [0, 2, 2, 4])


def test_ranges_and_row_of_value_by_hand() -> None:
    assert ragged.ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ragged.row_of_value(np.array([0, 2, 2, 3])).tolist() == [0, 0, 2]


@given(st.lists(st.sets(st.integers(-1, 9)), min_size=1, max_size=5), st.integers(-1, 9), st.integers(0, 4))
def test_contains_is_set_membership(items: list[set[int]], item: int, width: int) -> None:
    excluded = item_sets(items)
    wanted = np.full((len(items), width), item)
    found = excluded.contains(np.arange(len(items))[:, None], wanted)
    assert found.tolist() == [[item in row - {-1}] * width for row in items]
    flat = excluded.contains(np.zeros(3, np.int64), np.array([item, -1, item]))
    assert flat.tolist() == [item in items[0] - {-1}, False, item in items[0] - {-1}]
