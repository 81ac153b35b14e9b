"""Queries in ranges of a key, kept queries, and the types of their results."""

import dataclasses

import ibis
import pyarrow as pa
import pytest

from dssm_assets.core.features_raw.local_time import QueryDay, day_text, days_since, first_day_text
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage import tables as table_store
from dssm_assets.storage.engines import duckdb as ranges_module
from dssm_assets.storage.engines.duckdb import DuckDBEngine, find_cuts
from dssm_assets.storage.engines.engine import Target
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import NOTES, notes, stores

DS = "2024-01-02"
PROFILE = TableSpec("profile", "one row per user", ("user_id",), (ColumnSpec("user_id", None, "Who."),), {"*": "Said of them."})
TOTALS = TableSpec("totals", "one row per user", ("user_id",), (ColumnSpec("user_id", None, "Who."),), {"*": "A figure."})


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A store whose row groups are of five rows, and ranges of two row groups."""
    for module in (table_store, ranges_module):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 5)
    monkeypatch.setattr(ranges_module, "RANGE_GROUPS", 2)
    return TableStore(stores(tmp_path)["local"])


def events(tables: TableStore, users: list[object], ds: str = DS):
    rows = {"user_id": users, "at": pa.array(range(len(users)), pa.int64())}
    return tables.write(dataclasses.replace(NOTES, columns=NOTES.columns[:2]), ds, pa.table(rows))


TEXTS = sorted((f"{letter}{n}" for letter in "aZé" for n in range(10)), key=lambda text: text.encode())


@pytest.mark.parametrize(
    ("users", "cuts"),
    [
        # Row groups of five, 0-4, 5-9, ... 40-44, over three files of twenty rows at most.
        (list(range(45)), [10, 20, 30, 40]),
        # Row groups begin with 0, 5, 8, 8, 8, 8, 11, 16: the third, fifth and seventh are 8, 8 and 11.
        ([*range(8), *[8] * 20, *range(9, 21)], [8, 11]),
        (TEXTS, ["a0", "é0"]),
        ([3, 1, 2] * 10, []),
        ([*range(20, 40), *range(20)], []),
        ([1, 2, 3], []),
        (pa.array([], pa.int64()), []),
    ],
    ids=["second row groups", "one key in several", "byte order", "mixed", "two runs", "short", "none"],
)
def test_ranges_begin_at_every_second_row_group_of_ordered_rows(tables, users, cuts):
    assert find_cuts(tables, "user_id", [events(tables, users)]) == cuts


def test_ranges_follow_the_input_with_the_most_row_groups(tables):
    short, long = events(tables, list(range(15))), events(tables, list(range(100, 130)), "2024-01-03")
    assert find_cuts(tables, "user_id", [short, long]) == [110, 120]
    assert find_cuts(tables, "item_id", [long]) == []
    assert find_cuts(tables, "user_id", []) == []


def totals(profile: ibis.Table, activity: ibis.Table, rates: ibis.Table) -> ibis.Table:
    """One row per user of either table, with a rate that is there for all."""
    by_user = activity.group_by("user_id").agg(total=activity.at.sum(), count=activity.count())
    joined = profile.outer_join(by_user, "user_id")
    either = ibis.coalesce(joined.user_id, joined.user_id_right)
    rate = rates.aggregate(rate=rates.rate.sum())
    wide = joined.select(user_id=either, city=joined.city, total=joined.total, count=joined["count"]).cross_join(rate)
    return wide.order_by("user_id")


def doubled(numbers: ibis.Table) -> ibis.Table:
    by_name = numbers.group_by("name").agg(numbers.number.sum().name('a "sum"'), count=numbers.count())
    return by_name.order_by(ibis.desc("name"))


def test_sums_have_the_type_of_the_expression(tables):
    rows = pa.table({"name": ["a", "b", "b", "c"], "number": [1 << 62, -(1 << 62), -(1 << 62), None]})
    found = DuckDBEngine(tables).table(doubled, {"numbers": rows})
    assert found.schema.types == [pa.string(), pa.int64(), pa.int64()]
    assert found.to_pylist() == [
        {"name": "c", 'a "sum"': None, "count": 1},
        {"name": "b", 'a "sum"': -(1 << 63), "count": 2},
        {"name": "a", 'a "sum"': 1 << 62, "count": 1},
    ]
    with pytest.raises(pa.ArrowInvalid, match="out of bounds"):
        DuckDBEngine(tables).table(doubled, {"numbers": pa.concat_tables([rows, rows])})


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_a_query_in_ranges_writes_the_same_bytes(tables, kind):
    acted = pa.array([n * 7 % 60 for n in range(200)]).cast(kind)
    activity = events(tables, acted.sort().to_pylist())
    people = pa.array([*range(-9, 0), *range(5, 99, 3)]).cast(kind).sort()
    stored = tables.write(PROFILE, DS, pa.table({"user_id": people, "city": ["x"] * len(people)}))
    assert len(find_cuts(tables, "user_id", [stored, activity])) == 19
    inputs = {"profile": stored, "activity": activity, "rates": pa.table({"rate": [1, 2]})}
    made = {
        key: DuckDBEngine(tables).write_query(Target(TOTALS, DS, {}, by_key=key), totals, inputs, {})
        for key in (None, "user_id")
    }
    whole, ranged = (tables.read(made[key]) for key in (None, "user_id"))
    assert ranged.equals(whole)
    assert [file.sha256 for file in made["user_id"].files] == [file.sha256 for file in made[None].files]
    assert whole.num_rows > len(people)
    assert set(whole.column("rate").to_pylist()) == {3}


def test_a_kernel_sees_every_row_once_and_in_order(tables):
    activity, seen = events(tables, list(range(45))), []

    def kernel(batch: pa.RecordBatch) -> pa.RecordBatch:
        seen.extend(batch.column("user_id").to_pylist())
        return batch

    target = Target(TOTALS, DS, {}, by_key="user_id")
    DuckDBEngine(tables).write_query(target, lambda activity: activity.order_by("user_id"), {"activity": activity}, {}, kernel)
    assert seen == list(range(45))


def since(events: ibis.Table, *, ds: QueryDay, days: int) -> ibis.Table:
    """Rows of the window, and the number of the day."""
    kept = events.filter(events.note >= first_day_text(ds, days))
    return kept.select(
        "user_id",
        "note",
        ds=day_text(ds),
        age=days_since(kept.at, ds=ds, timezone="UTC", first_day="1970-01-01", last_day="2025-12-31"),
    )


DAY_ROWS = notes(("a", 0, "2024-01-01"), ("b", 86_400_000, "2024-01-03"))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_kept_query_follows_its_day_and_its_arguments(tmp_path, kind):
    tables = TableStore(stores(tmp_path)[kind])
    engine, stored = DuckDBEngine(tables), tables.write(NOTES, DS, DAY_ROWS)

    def rows(ds, days):
        return engine.table(since, {"events": stored}, ds=ds, days=days).to_pylist()

    late = {"user_id": "b", "note": "2024-01-03"}
    assert rows("2024-01-03", 2) == [{**late, "ds": "2024-01-03", "age": 19_724.0}]
    assert rows("2024-01-04", 2) == [{**late, "ds": "2024-01-04", "age": 19_725.0}]
    assert [row["user_id"] for row in rows("2024-01-03", 3)] == ["a", "b"]
    assert [row["ds"] for row in rows("2025-01-01", 900)] == ["2025-01-01"] * 2
    assert sum(key[0] is since for key in ranges_module._QUERIES) == 3  # one a window
