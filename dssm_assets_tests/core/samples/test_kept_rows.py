"""Which rows are kept and where they come to stand, by hand and against counting one by one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples import kept_rows
from dssm_assets.core.samples.kept_rows import KeptRows


def rows(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int32())


def taken(kept: KeptRows, table: str, *parts: list[int]) -> list[int]:
    batches = [pa.record_batch({"x": pa.array(part, pa.int64())}) for part in parts]
    return [value for batch in kept.take(table, batches) for value in batch.column("x").to_pylist()]


def test_places_by_hand() -> None:
    kept = KeptRows()
    kept.mark("first", 5, rows(4, None, 1, 4))
    kept.mark("second", 2, rows(0))
    kept.mark("first", 5, rows(3))  # another day that shares the first table
    # Unknown, then rows 1, 3, 4 of the first table, then row 0 of the second.
    assert (kept.num_rows, kept.tables) == (5, ["first", "second"])
    assert kept.find("first", rows(4, None, 1, 3, 4)).tolist() == [3, 0, 1, 2, 3]
    assert kept.find("second", rows(0, None)).tolist() == [4, 0]
    assert taken(kept, "first", [10, 11, 12], [13, 14]) == [11, 13, 14]
    assert taken(kept, "second", [20, 21]) == [20]


def test_a_table_that_nobody_points_into_takes_no_place() -> None:
    kept = KeptRows()
    kept.mark("unused", 3, rows(None, None))
    kept.mark("used", 9, pa.chunked_array([rows(8), rows()]))
    assert (kept.tables, kept.num_rows) == (["used"], 2)
    assert kept.find("unused", rows(None)).tolist() == [0]
    assert kept.find("used", rows(8)).tolist() == [1]


def test_nothing_is_known_on_the_first_day_nor_in_a_table_that_was_left_out() -> None:
    kept = KeptRows()
    assert (kept.num_rows, kept.tables) == (1, [])
    assert kept.find(None, rows(None, None)).tolist() == [0, 0]
    assert kept.find("left out", rows(3, None)).tolist() == [0, 0]
    with pytest.raises(SchemaError, match="first day: expected null feature rows, got 1 rows of a feature table"):
        kept.find(None, rows(None, 3))


def test_rows_outside_of_a_table_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"feature rows: expected 0 \.\. 2, got 0 \.\. 3"):
        KeptRows().mark("t", 3, rows(0, 3))


def test_more_rows_than_an_int32_can_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "_MOST_ROWS", 3)
    kept = KeptRows()
    kept.mark("t", 9, rows(0, 8))
    with pytest.raises(SchemaError, match="expected at most 3, got 4"):
        kept.mark("u", 9, rows(5))


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    days=st.lists(st.tuples(st.integers(0, 2), st.lists(st.none() | st.integers(0, 19), max_size=6)), max_size=6),
)
def test_places_are_those_of_the_kept_rows_one_after_another(
    sizes: list[int], days: list[tuple[int, list[int | None]]]
) -> None:
    used = [(f"{table % len(sizes)}", sizes[table % len(sizes)], found) for table, found in days]
    used = [(table, size, [row if row is None or row < size else None for row in found]) for table, size, found in used]
    kept = KeptRows()
    for table, size, found in used:
        kept.mark(table, size, rows(*found))
    order = list(dict.fromkeys(table for table, _, _ in used))
    pointed = {(table, row) for table, _, found in used for row in found if row is not None}
    stack: list[tuple[str, int] | None] = [
        None,
        *((table, row) for table in order for row in range(20) if (table, row) in pointed),
    ]
    assert kept.num_rows == len(stack)
    for table, size, found in used:
        assert [stack[place] for place in kept.find(table, rows(*found))] == [
            row if row is None else (table, row) for row in found
        ]
        assert taken(kept, table, list(range(size))) == [row for row in range(size) if (table, row) in pointed]
    assert all(kept.find(table, rows(*found)).dtype == np.int32 for table, _, found in used)
