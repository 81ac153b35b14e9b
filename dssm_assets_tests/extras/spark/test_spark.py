"""Spark SQL of ordered lists, which Ibis lacks; the functions that run in Spark workers, called without Spark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ibis
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.extras.spark import spark
from dssm_assets.extras.spark.spark import SparkEngine, list_pieces, read_piece, spark_types, write_sql
from dssm_assets.storage import tables as table_module
from dssm_assets.storage.engines.engine import Target
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.extras.spark.cluster import requires_pyspark
from dssm_assets_tests.extras.spark.sessions import LocalSession
from dssm_assets_tests.storage.stores import DS, NOTES, notes, stores

EVENTS = ibis.table({"user_id": "int64", "item_id": "string", "at": "int64", "price": "float64"}, name="events")


@requires_pyspark
def test_collect_sorts_structs_of_keys_and_value() -> None:
    lists = EVENTS.group_by("user_id").agg(
        items=EVENTS.item_id.collect(order_by=[EVENTS.at, EVENTS.item_id], include_null=True)
    )
    text = " ".join(write_sql(lists).split())
    assert (
        "ARRAY_SORT( COLLECT_LIST( STRUCT(`t0`.`at` AS `key_0`, `t0`.`item_id` AS `key_1`, `t0`.`item_id` AS `value`)" in text
    )


@requires_pyspark
def test_collect_filters_nulls_unless_include_null() -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(where=EVENTS.at > 5, order_by=EVENTS.at))
    assert "( `t0`.`at` > 5 ) AND ( `t0`.`item_id` IS NOT NULL )" in " ".join(write_sql(lists).split())


@requires_pyspark
def test_collect_refuses_descending_keys() -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(order_by=ibis.desc("at")))
    with pytest.raises(NotImplementedError, match="collect takes ascending keys and keeps every entry"):
        write_sql(lists)


TARGET = Target(NOTES, DS, {})
ROWS = [(f"u{number}", number, None) for number in range(23)]


@pytest.fixture(params=["local", "memory"])
def tables(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """A store whose files have 4 rows."""
    monkeypatch.setattr(table_module, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(spark, "PIECE_GROUPS", 1)
    return TableStore(stores(tmp_path)[request.param])


def test_a_long_table_has_several_parts(tables: TableStore) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS))
    rows = [4, 4, 4, 4, 4, 3]
    assert [(file.name, file.rows) for file in manifest.files] == [
        (f"part-0000{n}.parquet", count) for n, count in enumerate(rows)
    ]
    assert tables.read(manifest) == notes(*ROWS)
    assert [batch.num_rows for batch in tables.batches(manifest)] == [4, 4, 4, 4, 4, 3]


def test_pieces_cover_every_row_whatever_the_row_group_size(tables: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tables.write(NOTES, DS, notes(*ROWS))
    monkeypatch.setattr(table_module, "ROW_GROUP_ROWS", 3)  # as if the files had been written by another version
    made = list_pieces([manifest])
    assert len(made) == 11
    read = [found for piece in made for found in read_piece(tables.partitions, piece)]
    assert pa.concat_tables([table for table, _ in read]) == notes(*ROWS)
    assert [start for _, start in read] == [0, 3, 4, 7, 8, 11, 12, 15, 16, 19, 20]


@requires_pyspark
def test_files_and_reports_of_tasks_come_back_in_the_order_of_the_rows(tables: TableStore) -> None:
    """The session runs the last task first; the second one makes no rows."""
    source = tables.write(replace(NOTES, name="source"), DS, notes(*ROWS[:11]))

    def kernel(table: pa.Table, start: int) -> tuple[pa.Table, int]:
        return (table.slice(0, 0) if start == 4 else table), start

    published, reports = SparkEngine(tables, LocalSession()).write_mapped(TARGET, source, kernel)
    assert [(file.name, file.rows) for file in published.files] == [("part-00000.parquet", 4), ("part-00002.parquet", 3)]
    assert reports == [0, 4, 8]
    assert tables.read(published) == notes(*ROWS[:4], *ROWS[8:11])


@requires_pyspark
def test_a_task_refuses_nulls_in_a_required_column(tables: TableStore) -> None:
    rows = notes(("a", 1, None), (None, 2, None))
    source = tables.write(replace(NOTES, name="source", columns=()), DS, rows)
    with pytest.raises(SchemaError, match="table notes, column user_id: expected no nulls"):
        SparkEngine(tables, LocalSession()).write_mapped(TARGET, source, lambda table, _: (table, None))
    assert tables.partitions.find("notes", DS) is None, "nothing is published by tasks"


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
