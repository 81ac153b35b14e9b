"""Reads equal pyarrow's, for any chunking; memory-mapped columns are not copied; bad columns are all named."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.table_view import Array, Concat, RowGather, TableView
from dssm_assets.core.errors import SchemaError

LIST = pa.list_(pa.int32())


def _table(count: int, cuts: list[int]) -> pa.Table:
    numbers = pa.array(np.arange(count, dtype=np.int32) * 10)
    lists = pa.array([list(range(row % 4)) for row in range(count)], LIST)
    bounds = sorted({0, count, *[cut for cut in cuts if cut < count]})
    whole = pa.table({"a": numbers, "b": lists})
    return pa.concat_tables([whole.slice(low, high - low) for low, high in pairwise(bounds)])


@given(cuts=st.lists(st.integers(0, 19), max_size=4), rows=st.lists(st.integers(0, 19), max_size=12))
def test_table_view_equals_pyarrow_for_any_chunks(cuts: list[int], rows: list[int]) -> None:
    table = _table(20, cuts)
    view = TableView(table, "t", {"a": pa.int32(), "b": LIST})
    selection = view.select(np.array(rows, np.int64))
    assert view.read_column("a", selection).tolist() == [10 * row for row in rows]
    values, offsets = view.read_list("b", selection)
    got = [values[low:high].tolist() for low, high in pairwise(offsets.tolist())]
    assert got == [list(range(row % 4)) for row in rows]


def test_table_view_blocks_hold_only_values_of_rows() -> None:
    view = TableView(_table(20, [7]).slice(2, 9), "t", {"a": pa.int32(), "b": LIST})
    assert [block.tolist() for block in view.blocks("a")] == [[20, 30, 40, 50, 60], [70, 80, 90, 100]]
    assert [len(block) for block in view.blocks("b")] == [2 + 3 + 0 + 1 + 2, 3 + 0 + 1 + 2]


def test_table_view_does_not_copy_a_memory_map(tmp_path: Path) -> None:
    path = str(tmp_path / "t.arrow")
    whole = pa.table({"a": pa.array(np.zeros(1_000_000, np.int32))})
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=300_000)
    before = pa.total_allocated_bytes()
    with pa.memory_map(path) as source:
        view = TableView(pa.ipc.open_file(source).read_all(), "t", {"a": pa.int32()})
        blocks = list(view.blocks("a"))
        assert [len(block) for block in blocks] == [300_000, 300_000, 300_000, 100_000]
        assert not any(block.flags.owndata or block.flags.writeable for block in blocks)
        assert pa.total_allocated_bytes() - before < 100_000


def test_table_view_names_every_bad_column() -> None:
    table = pa.table({"a": pa.array([1, None], pa.int32()), "b": pa.array([1, 2], pa.int64())})
    with pytest.raises(SchemaError) as caught:
        TableView(table, "samples", {"a": pa.int32(), "b": pa.int32(), "c": LIST})
    assert [(f.where, f.got) for f in caught.value.faults] == [
        ("table samples, column a", "1 nulls in 2 rows"),
        ("table samples, column b", "int64"),
        ("table samples, column c", "columns a, b"),
    ]


LIST_ROW_GATHER, WEIGHTS = pa.list_(pa.int32()), pa.list_(pa.float32())
KINDS = {"a": pa.int32(), "b": pa.int32(), "time": pa.int64(), "weight": pa.float32(), "share": pa.float64()}


def table(count: int) -> pa.Table:
    numbers = {
        name: pa.array([10 * row + place for row in range(count)], kind) for place, (name, kind) in enumerate(KINDS.items())
    }
    lists = [list(range(row, row + row % 4)) for row in range(count)]
    return pa.table({**numbers, "bag": pa.array(lists, LIST_ROW_GATHER), "bag_weights": pa.array(lists, WEIGHTS)})


def cut(whole: pa.Table, cuts: list[int]) -> pa.Table:
    """Returns the table in chunks that lie apart: neighbours in one buffer would hide a row read from the wrong chunk."""
    bounds = sorted({0, whole.num_rows, *[place for place in cuts if place < whole.num_rows]})
    return pa.concat_tables([whole.take(pa.array(range(low, high), pa.int64())) for low, high in pairwise(bounds)])


def join(parts: Iterable[Array], kind: np.dtype[Any]) -> Array:
    return np.concatenate([np.zeros(0, kind), *parts])


def read(source: pa.Table, rows: list[int]) -> pa.Table:
    """Returns the rows as the gather reads them, column by column."""
    lists = [field.name for field in source.schema if pa.types.is_list(field.type)]
    flat = [name for name in source.column_names if name not in lists]
    gather, of_records = RowGather(source, flat=flat, lists=lists), RowGather(source, flat=flat, concat=join)
    at = gather.select(np.array(rows, np.int64))
    columns = {}
    for field in source.schema:
        if field.name in lists:
            values, offsets = gather.read_list(field.name, at)
            columns[field.name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=field.type)
        else:
            columns[field.name] = pa.array(gather.read_column(field.name, at))
            for one in (gather, of_records):
                assert one.read_columns(at)[field.name].tolist() == columns[field.name].to_pylist()
    return pa.table(columns)


@given(cuts=st.lists(st.integers(0, 19), max_size=5), first=st.integers(0, 3), rows=st.lists(st.integers(0, 16), max_size=12))
def test_row_gather_equals_pyarrow_for_any_chunks(cuts: list[int], first: int, rows: list[int]) -> None:
    source = cut(table(20), cuts).slice(first)
    assert read(source, rows).equals(source.take(pa.array(rows, pa.int64())).combine_chunks())


@pytest.mark.parametrize("concat", [None, join])
def test_row_gather_reads_flat_columns_as_a_matrix(concat: Concat | None) -> None:
    source = cut(table(9), [2, 5]).select(["b", "a"])
    gather = RowGather(source, flat=["b", "a"], concat=concat)
    assert gather.read_matrix(gather.select(np.array([8, 0, 4]))).tolist() == [[81, 80], [1, 0], [41, 40]]
    assert gather.read_matrix(gather.select(np.array([], np.int64))).shape == (0, 2)
    only_lists = RowGather(cut(table(9), [2]), lists=["bag"], concat=concat)
    assert only_lists.read_matrix(only_lists.select(np.array([1, 2]))).shape == (2, 0)


def test_row_gather_reads_chunks_in_files_and_in_memory(tmp_path: Path) -> None:
    parts = [table(5), table(3).slice(0, 0), table(4), table(6)]
    for place in (0, 2):
        path = str(tmp_path / f"{place}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, parts[place].schema) as writer:
            writer.write_table(parts[place])
        parts[place] = pa.ipc.open_file(pa.memory_map(path)).read_all()
    source = pa.concat_tables(parts)
    rows = [14, 0, 5, 8, 9, 4, 4]
    assert read(source, rows).equals(source.take(rows).combine_chunks())


def test_row_gather_does_not_copy_a_memory_map(tmp_path: Path) -> None:
    path = str(tmp_path / "t.arrow")
    whole = pa.table({"a": pa.array(np.arange(1_000_000, dtype=np.int32))})
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=300_000)
    before = pa.total_allocated_bytes()
    gather = RowGather(pa.ipc.open_file(pa.memory_map(path)).read_all(), flat=["a"])
    rows = np.array([999_999, 0, 300_000, 299_999])
    assert gather.read_column("a", gather.select(rows)).tolist() == rows.tolist()
    assert pa.total_allocated_bytes() - before < 100_000


def test_row_gather_reads_unaligned_values() -> None:
    numbers = np.array([7, 8, 9], np.int32)
    odd = pa.Array.from_buffers(pa.int32(), 3, [None, pa.py_buffer(b"x" + numbers.tobytes()).slice(1)])
    source = pa.table({"a": pa.chunked_array([odd, pa.array([5], pa.int32())])})
    gather = RowGather(source, flat=["a"])
    assert gather.read_column("a", gather.select(np.array([3, 0, 2]))).tolist() == [5, 7, 9]


@pytest.mark.parametrize("rows", [[0, 4], [-1, 0]])
def test_row_gather_refuses_rows_outside_the_table(rows: list[int]) -> None:
    with pytest.raises(IndexError, match="of a table of 4"):
        RowGather(cut(table(4), [2]), flat=["a"]).select(np.array(rows))


@pytest.mark.parametrize("concat", [None, join])
def test_row_gather_of_an_empty_table(concat: Concat | None) -> None:
    gather = RowGather(table(0), flat=["a", "b"], lists=["bag"], concat=concat)
    at = gather.select(np.array([], np.int64))
    assert gather.read_matrix(at).shape == (0, 2)
    values, offsets = gather.read_list("bag", at)
    assert (values.tolist(), offsets.tolist()) == ([], [0])
    with pytest.raises(IndexError, match="of a table of 0"):
        gather.select(np.array([0]))


def test_row_gather_reads_empty_lists() -> None:
    source = pa.table({"bag": pa.chunked_array([pa.array([[], []], LIST_ROW_GATHER), pa.array([[3], []], LIST_ROW_GATHER)])})
    gather = RowGather(source, lists=["bag"])
    values, offsets = gather.read_list("bag", gather.select(np.array([0, 2, 1])))
    assert (values.tolist(), offsets.tolist()) == ([3], [0, 0, 1, 1])
