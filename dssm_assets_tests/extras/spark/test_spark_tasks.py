"""The functions that run in Spark workers, called without Spark: reading pieces, staging fragments, writing parts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.extras.spark import spark_tasks
from dssm_assets.extras.spark.spark_tasks import (
    Cut,
    Fragment,
    Piece,
    cut_parts,
    files_of,
    fragments_of,
    needs_workers,
    pieces_of,
    read_piece,
    spark_types,
    write_part,
)
from dssm_assets.storage import tables as table_module
from dssm_assets.storage.partitions import StoreAddress
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import DS, NOTES, SCHEMA, notes, stores

ROWS = [(f"u{number}", number, None) for number in range(23)]


@pytest.fixture(params=["local", "memory"])
def tables(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """A store whose row groups have 4 rows and whose parts have 8."""
    monkeypatch.setattr(table_module, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(table_module, "PART_ROWS", 8)
    return TableStore(stores(tmp_path)[request.param])


def test_a_long_table_has_several_parts(tables: TableStore) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS))
    assert [(file.name, file.rows) for file in manifest.files] == [
        ("part-00000.parquet", 8),
        ("part-00001.parquet", 8),
        ("part-00002.parquet", 7),
    ]
    assert tables.read(manifest) == notes(*ROWS)
    assert [batch.num_rows for batch in tables.batches(manifest)] == [4, 4, 4, 4, 4, 3]


def test_pieces_are_row_groups_in_order_with_their_start_rows(tables: TableStore) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS))
    read = [found for piece in pieces_of(tables.partitions, [manifest]) for found in read_piece(tables.partitions, piece)]
    assert [start for _, start in read] == [0, 4, 8, 12, 16, 20]
    assert pa.concat_tables([table for table, _ in read]) == notes(*ROWS)


def test_pieces_cover_every_row_whatever_the_row_group_size(tables: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS))
    monkeypatch.setattr(table_module, "ROW_GROUP_ROWS", 3)  # as if the files had been written by another version
    made = pieces_of(tables.partitions, [manifest])
    assert len(made) == 9
    read = [found for piece in made for found in read_piece(tables.partitions, piece)]
    assert pa.concat_tables([table for table, _ in read]) == notes(*ROWS)
    assert [start for _, start in read] == [0, 4, 8, 12, 16, 20]


@given(rows=st.lists(st.integers(0, 30), max_size=8), part_rows=st.integers(1, 20))
def test_cut_parts_covers_every_row_once_in_full_parts_but_the_last(rows: list[int], part_rows: int) -> None:
    fragments = [Fragment(f"{position}", count) for position, count in enumerate(rows)]
    parts = cut_parts(fragments, part_rows)
    listed = [(cut.fragment.path, cut.skip + row) for part in parts for cut in part for row in range(cut.rows)]
    assert listed == [(fragment.path, row) for fragment in fragments for row in range(fragment.rows)]
    sizes = [sum(cut.rows for cut in part) for part in parts]
    assert all(size == part_rows for size in sizes[:-1])
    assert sizes[-1] <= part_rows
    assert len(sizes) == max(1, -(-sum(rows) // part_rows))


@pytest.mark.parametrize("cuts", [[5, 11], [], [1, 2, 22], [23]])
def test_parts_written_from_fragments_are_the_files_that_the_store_writes(tables: TableStore, cuts: list[int]) -> None:
    expected = tables.write(NOTES, DS, notes(*ROWS))
    bounds = [0, *cuts, len(ROWS)]
    store = tables.partitions
    with store.staging_in_store() as folder:
        returned = []
        for position, (first, end) in enumerate(itertools.pairwise(bounds)):
            batches = iter(notes(*ROWS[first:end]).to_batches(max_chunksize=3))
            fragment = spark_tasks._stage_fragment(store, folder, position, SCHEMA, batches)
            returned += [row for batch in spark_tasks._returned(position, fragment, []) for row in batch.to_pylist()]
        fragments, reports = fragments_of(reversed(returned))
        parts = cut_parts(fragments, table_module.PART_ROWS)
        work = write_part(StoreAddress.from_store(store), parts, NOTES, DS, SCHEMA, is_shared=False)
        written = [row for number in reversed(range(len(parts))) for batch in work(number) for row in batch.to_pylist()]
        files = files_of(written)
        assert store.fs.exists(folder)
    assert reports == []
    if store.is_local:
        assert files == list(expected.files)
    else:  # file names that are used only once
        assert [replace(file, path="") for file in files] == [replace(file, path="") for file in expected.files]
    assert not store.fs.exists(folder)


def test_write_part_refuses_nulls_in_a_required_column(tables: TableStore) -> None:
    with tables.partitions.staging_in_store() as folder:
        rows = iter(notes(("a", 1, None), (None, 2, None)).to_batches())
        fragment = spark_tasks._stage_fragment(tables.partitions, folder, 0, SCHEMA, rows)
        work = write_part(
            StoreAddress.from_store(tables.partitions), [[Cut(fragment, 0, 2)]], NOTES, DS, SCHEMA, is_shared=False
        )
        with pytest.raises(SchemaError, match="table notes, column user_id: expected no nulls"):
            list(work(0))


def test_reports_come_back_in_the_order_of_their_fragments() -> None:
    rows = [
        row
        for position in (1, 0)
        for batch in spark_tasks._returned(position, Fragment("f", 0), [position])
        for row in batch.to_pylist()
    ]
    assert fragments_of(rows) == ([Fragment("f", 0), Fragment("f", 0)], [0, 1])


def test_spark_types_widens_types_that_spark_lacks() -> None:
    schema = pa.schema(
        [("a", pa.uint8()), ("b", pa.list_(pa.uint64())), ("c", pa.timestamp("ns")), ("d", pa.timestamp("ms", "UTC"))]
    )
    assert spark_types(schema) == pa.schema(
        [
            ("a", pa.int16()),
            ("b", pa.list_(pa.decimal128(20))),
            ("c", pa.timestamp("us")),
            ("d", pa.timestamp("us", "UTC")),
        ]
    )
    assert needs_workers(schema)
    assert not needs_workers(spark_types(schema))


def test_a_piece_has_the_day_of_its_partition(tables: TableStore) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS[:2]))
    (piece,) = pieces_of(tables.partitions, [manifest])
    assert piece == Piece(tables.paths([manifest])[0], manifest.files[0].bytes, 0, 0, 1, DS)
