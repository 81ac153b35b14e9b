"""The structure of a table of vectors: every kind of fault is found and named, however the rows are cut into parts."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.retrieval.structure import VectorStructure

NAN, INF = float("nan"), float("inf")


def report(ids: list[Any], vectors: list[Any], *, expected: int | None = None, parts: int = 1) -> tuple[bool, str]:
    structure = VectorStructure(width=2, expected_row_count=len(ids) if expected is None else expected)
    size = -(-len(ids) // parts) or 1
    for begin in range(0, len(ids), size):
        part = slice(begin, begin + size)
        kind = pa.string() if any(isinstance(value, str) for value in ids) else pa.int64()
        structure.check_rows(pa.array(ids[part], kind), pa.array(vectors[part], pa.list_(pa.float32(), 2)))
    return structure.report()


def test_sound_vectors_pass() -> None:
    assert report(["b", "a"], [[1, 0], [0, -2]]) == (True, "2 vectors of 2 floats, ids unique, all finite, none all zeros")


@pytest.mark.parametrize("parts", [1, 3])
def test_each_fault_names_its_first_ids(parts: int) -> None:
    ids = ["a", "b", "c", "d", "a", "f"]
    vectors = [[1, 0], [NAN, 1], [0, 0], [INF, 0], [1, 1], [1, None]]
    assert report(ids, vectors, expected=9, parts=parts) == (
        False,
        "6 rows where 9 were expected; 3 not finite (NaN or infinity): b, d, f; 1 all zeros: c; 1 ids of several rows: a",
    )


def test_only_the_first_five_ids_are_named_and_all_are_counted() -> None:
    assert report(list(range(8)), [[0, 0]] * 8, parts=3) == (False, "8 all zeros: 0, 1, 2, 3, 4, ...")


def test_user_ids_are_not_named() -> None:
    structure = VectorStructure(width=2, expected_row_count=1, is_of_users=True)
    structure.check_rows(pa.array([17]), pa.array([[0, 0]], pa.list_(pa.float32(), 2)))
    assert structure.report() == (False, "1 all zeros")


def test_sliced_arrays_are_checked_by_their_rows() -> None:
    ids, vectors = pa.array([1, 2, 3]), pa.array([[0, 0], [1, 0], [0, 0]], pa.list_(pa.float32(), 2))
    structure = VectorStructure(width=2, expected_row_count=1)
    structure.check_rows(ids.slice(1, 1), vectors.slice(1, 1))
    assert structure.report()[0]


_FLOATS = st.sampled_from([0.0, -0.0, 1.0, NAN, INF])
_ROWS = st.lists(st.tuples(st.integers(0, 4), st.lists(_FLOATS, min_size=2, max_size=2)), max_size=12)


@given(rows=_ROWS, parts=st.integers(1, 4))
def test_fault_counts_equal_a_loop(rows: list[tuple[int, list[float]]], parts: int) -> None:
    ids, vectors = [row[0] for row in rows], [row[1] for row in rows]
    expected = {
        "not finite (NaN or infinity)": sum(not all(map(math.isfinite, v)) for v in vectors),
        "all zeros": sum(all(x == 0 for x in v) for v in vectors),
        "ids of several rows": sum(ids.count(one) > 1 for one in set(ids)),
    }
    passed, sentence = report(ids, vectors, parts=parts)
    assert passed == (not any(expected.values()))
    if not passed:
        said = [part.partition(":")[0] for part in sentence.split("; ")]
        assert said == [f"{count} {what}" for what, count in expected.items() if count]
