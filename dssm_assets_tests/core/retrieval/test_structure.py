"""The structure of a table of vectors: every kind of fault is found and named, however the rows are cut into parts."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.retrieval.structure import StructureReport, VectorStructure

NAN, INF = float("nan"), float("inf")


def report(ids: list[Any], vectors: list[Any], *, expected: int | None = None, parts: int = 1) -> StructureReport:
    structure = VectorStructure(width=2, expected_row_count=len(ids) if expected is None else expected)
    size = -(-len(ids) // parts) or 1
    for begin in range(0, len(ids), size):
        part = slice(begin, begin + size)
        kind = pa.string() if any(isinstance(value, str) for value in ids) else pa.int64()
        structure.check_rows(pa.array(ids[part], kind), pa.array(vectors[part], pa.list_(pa.float32(), 2)))
    return structure.report()


@pytest.mark.parametrize("parts", [1, 3])
def test_each_fault_names_its_first_ids(parts: int) -> None:
    ids = ["a", "b", "c", "d", "a", "f"]
    vectors = [[1, 0], [NAN, 1], [0, 0], [INF, 0], [1, 1], [1, None]]
    bad = report(ids, vectors, expected=9, parts=parts)
    assert not bad.passed
    found = {offence.what: (offence.count, offence.first_ids) for offence in bad.offences}
    assert found == {
        "not finite (NaN or infinity)": (3, ("b", "d", "f")),
        "all zeros": (1, ("c",)),
        "under the id of another row": (1, ("a",)),
    }
    assert bad.sentence.startswith("6 rows where 9 were expected; ")
    assert "3 not finite (NaN or infinity): b, d, f" in bad.sentence


def test_only_the_first_five_ids_are_named_and_all_are_counted() -> None:
    bad = report(list(range(8)), [[0, 0]] * 8, parts=3)
    assert bad.sentence == "8 all zeros: 0, 1, 2, 3, 4, ..."


def test_sliced_arrays_are_checked_by_their_rows() -> None:
    ids, vectors = pa.array([1, 2, 3]), pa.array([[0, 0], [1, 0], [0, 0]], pa.list_(pa.float32(), 2))
    structure = VectorStructure(width=2, expected_row_count=1)
    structure.check_rows(ids.slice(1, 1), vectors.slice(1, 1))
    assert structure.report().passed


_FLOATS = st.sampled_from([0.0, -0.0, 1.0, NAN, INF])
_ROWS = st.lists(st.tuples(st.integers(0, 4), st.lists(_FLOATS, min_size=2, max_size=2)), max_size=12)


@given(rows=_ROWS, parts=st.integers(1, 4))
def test_fault_counts_equal_a_loop(rows: list[tuple[int, list[float]]], parts: int) -> None:
    ids, vectors = [row[0] for row in rows], [row[1] for row in rows]
    expected = {
        "not finite (NaN or infinity)": sum(not all(map(math.isfinite, v)) for v in vectors),
        "all zeros": sum(all(x == 0 for x in v) for v in vectors),
        "under the id of another row": len(ids) - len(set(ids)),
    }
    found = report(ids, vectors, parts=parts)
    assert {offence.what: offence.count for offence in found.offences} == {k: v for k, v in expected.items() if v}
    assert found.passed == (not any(expected.values()))
