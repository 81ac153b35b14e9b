"""The engine: expressions over stored partitions, with the expression's own types."""

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.engines.engine import ByDay, Target
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import NOTES, notes, stores


@pytest.fixture(params=["local", "memory"])
def tables(request, tmp_path):
    return TableStore(stores(tmp_path)[request.param])


@pytest.fixture
def days(tables):
    return [
        tables.write(NOTES, "2024-01-01", notes(("a", 1, None), ("b", 2, "x"))),
        tables.write(NOTES, "2024-01-02", notes(("a", 10, None))),
    ]


def test_by_day_adds_the_day_of_each_row(tables, days):
    def tagged(rows):
        return rows.select("ds", "at").order_by("at")

    result = DuckDBEngine(tables).table(tagged, {"rows": ByDay(tuple(days))})
    assert [str(ds) for ds in result.column("ds").to_pylist()] == ["2024-01-01", "2024-01-01", "2024-01-02"]
    assert result.column("at").to_pylist() == [1, 2, 10]


def test_a_list_of_partitions_is_one_table_without_days(tables, days):
    result = DuckDBEngine(tables).table(lambda rows: rows.order_by("at"), {"rows": days})
    assert result.column_names == ["user_id", "at", "note"]
    assert result.column("at").to_pylist() == [1, 2, 10]


def test_partitions_tables_and_arguments_reach_the_expression(tables, days):
    def joined(stored, known, least):
        return stored.filter(stored.at >= least).left_join(known, "user_id").select("user_id", "city").order_by("user_id")

    known = pa.table({"user_id": ["b"], "city": ["x"]})
    result = DuckDBEngine(tables).table(joined, {"stored": days[0], "known": known}, least=1)
    assert result.to_pydict() == {"user_id": ["a", "b"], "city": [None, "x"]}


def test_text_and_lists_have_plain_arrow_types(tables, days):
    def lists(rows):
        return rows.group_by("user_id").aggregate(times=rows.at.collect()).order_by("user_id")

    result = DuckDBEngine(tables).table(lists, {"rows": days[:1]})
    assert result.schema == pa.schema([("user_id", pa.string()), ("times", pa.list_(pa.int64()))])


def test_an_empty_result_keeps_its_types(tables, days):
    result = DuckDBEngine(tables).table(lambda rows: rows.filter(rows.at > 99), {"rows": days})
    assert result.num_rows == 0
    assert result.schema == pa.schema([("user_id", pa.string()), ("at", pa.int64()), ("note", pa.string())])


def test_calls_share_nothing(tables, days):
    engine = DuckDBEngine(tables)
    engine.table(lambda known: known, {"known": pa.table({"x": [1]})})
    assert engine.table(lambda known: known, {"known": pa.table({"x": [2]})}).to_pydict() == {"x": [2]}


def test_duckdb_spills_to_scratch_and_cleans_up(tmp_path):
    tables = TableStore(stores(tmp_path)["local"])
    count = 1_500_000
    shuffled = (np.arange(count, dtype=np.int64) * 1_000_003) % count
    batches = (pa.record_batch({"user_id": pa.array(part).cast(pa.string()), "at": part}) for part in np.split(shuffled, 10))
    spec = dataclasses.replace(NOTES, columns=NOTES.columns[:2])
    schema = pa.schema([("user_id", pa.string()), ("at", pa.int64())])
    stored = tables.write(spec, "2024-01-01", batches, schema=schema)
    scratch = tmp_path / "scratch"
    engine = DuckDBEngine(tables, threads=1, memory="32MB", scratch=scratch)
    spilled = []

    def look(batch):
        spilled.append(any(path.is_file() for path in scratch.rglob("*")))
        return batch

    target = Target(dataclasses.replace(spec, name="sorted"), "2024-01-01", {})
    written = engine.write_query(target, lambda rows: rows.order_by("at"), {"rows": stored}, {}, look)
    assert tables.read(written).column("at").to_numpy().tolist() == list(range(count))
    assert any(spilled)
    del engine
    assert [path.name for path in scratch.rglob("*")] == [f"dssm-assets-{os.geteuid()}", ".dssm-assets"], (
        "our folder and its mark"
    )


def test_write_mapped_keeps_the_existing_partition_if_not_accepted(tables, days):
    def double(table, start):
        return table.set_column(1, "at", pa.array([2 * at for at in table.column("at").to_pylist()], pa.int64())), (
            start,
            table.num_rows,
        )

    def write(accepts):
        target = Target(dataclasses.replace(NOTES, name="doubled"), days[0].ds, {days[0].key: days[0].digest})
        return DuckDBEngine(tables).write_mapped(target, days[0], double, accepts=accepts)

    first, reports = write(lambda found: False)
    assert reports == [(0, 2)]
    assert tables.read(first).column("at").to_pylist() == [2, 4], "no partition existed"
    tables.write(dataclasses.replace(NOTES, name="doubled"), days[0].ds, notes(("c", 3, None)))
    kept, reports = write(lambda found: found != [(0, 2)])
    assert tables.read(kept).column("at").to_pylist() == [3]
    assert reports == [(0, 2)]
    assert write(lambda found: found == [(0, 2)])[0].digest == first.digest
