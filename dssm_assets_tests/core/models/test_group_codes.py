"""Codes of groups: which items belong to one, which vectors are filled in, storing them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.models.group_codes import GroupCodes, read_keys

CODES = GroupCodes(
    ("type", "maker"),
    np.array([[1, 300], [2, 1], [2, 70_000]], np.int32),
    np.array([[7, 8], [0, 5], [9, 9]], np.float32),
)


def test_items_find_the_group_with_all_values_alike() -> None:
    items = pa.table({"maker": pa.array([300, 1, 1, 70_000], pa.int32()), "type": pa.array([1, 1, 2, 2], pa.int32())})
    assert CODES.find_groups(read_keys(items, CODES.features)).tolist() == [0, -1, 1, 2]


def test_only_vectors_without_a_code_of_their_own_are_filled_in() -> None:
    vectors = np.array([[1, 0, 0], [2, 0, 3], [4, 0, 0]], np.float32)
    keys = np.array([[1, 300], [1, 300], [5, 5]], np.int32)
    assert CODES.fill_in(vectors, keys).tolist() == [[1, 7, 8], [2, 0, 3], [4, 0, 0]]
    assert vectors[0].tolist() == [1, 0, 0]


def test_codes_are_stored_and_read() -> None:
    found = GroupCodes.from_bytes(CODES.to_bytes())
    assert found.features == CODES.features
    assert found.keys.tolist() == CODES.keys.tolist()
    assert found.codes.tolist() == CODES.codes.tolist()
    assert CODES.to_bytes() == CODES.to_bytes()
    none = GroupCodes(("type",), np.zeros((0, 1), np.int32), np.zeros((0, 2), np.float32))
    assert GroupCodes.from_bytes(none.to_bytes()).find_groups(np.array([[1]])).tolist() == [-1]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2**31 - 1)), min_size=1, max_size=30))
def test_groups_are_found_by_their_keys(rows: list[tuple[int, int]]) -> None:
    keys = sorted(set(rows))
    codes = GroupCodes(("a", "b"), np.array(keys, np.int32), np.zeros((len(keys), 1), np.float32))
    assert codes.find_groups(np.array(rows)).tolist() == [keys.index(row) for row in rows]
