"""Reads equal pyarrow's, for any chunking; memory-mapped columns are not copied; bad columns are all named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.table_view import TableView
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


def test_table_view_does_not_copy_a_memory_map(tmp_path: Path) -> None:
    path = str(tmp_path / "t.arrow")
    whole = pa.table({"a": pa.array(np.zeros(1_000_000, np.int32))})
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=300_000)
    before = pa.total_allocated_bytes()
    with pa.memory_map(path) as source:
        view = TableView(pa.ipc.open_file(source).read_all(), "t", {"a": pa.int32()})
        blocks = [block for (block,) in view.blocks("a")]
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
