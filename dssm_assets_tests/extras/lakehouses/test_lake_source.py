"""Delta and Iceberg tables as sources: the files of a day, versions, deletes, columns, changes, errors."""

import datetime as dt
import decimal
import sys
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyiceberg.types import StringType

from dssm_assets.core.config.pipeline import BehaviorTable
from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.extras.lakehouses import delta_source
from dssm_assets.storage.sources.landing import SourceLanding
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import SourceMissingError
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets.storage.sources.table_source import TableError
from dssm_assets_tests.extras.lakehouses.deletes import (
    delete_second_row,
    rename_columns,
    write_equality_deletes,
    write_position_deletes,
)
from dssm_assets_tests.extras.lakehouses.lakes import open_lake


def rows(*events, ds=None, **more):
    """Returns one row for each "user day hour" of January 2026 in UTC."""
    parts = [event.split() for event in events]
    times = [dt.datetime(2026, 1, int(day), int(hour), tzinfo=dt.UTC) for _, day, hour in parts]
    table = {"user_id": [user for user, _, _ in parts], "item_id": ["i"] * len(parts), "ts": times} | more
    return pa.table(table | ({"ds": [ds] * len(parts)} if ds is not None else {}))


def configured(lake, layout="time_column", **more):
    columns = {"event_time": "ts"} | more.pop("columns", {})
    return BehaviorTable(**lake.source, layout=layout, columns=columns, constant_event="buy", **more)


def users_of(source, day, timezone="UTC"):
    if isinstance(source, BehaviorTable):
        source = open_source(source, "behavior_table")
    ((_, found),) = read_days(source, [day], timezone=timezone)
    return sorted(found.column("user_id").to_pylist())


def remove_files(lake, users):
    """Removes the files with rows of some users from the disk."""
    for path in lake.data_files():
        if users & set(pq.read_table(path).column("user_id").to_pylist()):
            path.unlink()


@pytest.mark.parametrize("layout", ["time_column", "ds_folders"])
def test_a_day_opens_its_own_files_alone(lake, layout):
    # The files of ds 3 and 4 have rows of the 3rd, the second of them a late one.
    for ds, events in {2: ["a 2 1"], 3: ["b 3 1", "c 3 23"], 4: ["late 3 9", "d 4 1"], 5: ["e 5 1"]}.items():
        lake.append(rows(*events, ds=f"2026-01-0{ds}"), "ds")
    remove_files(lake, {"a", "e"} if layout == "time_column" else {"a", "late", "e"})
    table = configured(lake, layout)
    assert users_of(table, "2026-01-03") == {"time_column": ["b", "c", "late"], "ds_folders": ["b", "c"]}[layout]
    with pytest.raises(TableError, match=rf"all rows of its version, {lake.format} \d+, got .*To fix: .*unchanged"):
        users_of(table, "2026-01-02")


@pytest.mark.parametrize("kind", ["wall", "date", "ms", "s"])
def test_times_of_every_type_have_bounds(lake, kind):
    table = rows("a 2 1", "b 3 0", "c 3 23", "d 4 0")
    ms = table.column("ts").cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    times = {
        "wall": ms.cast(pa.timestamp("ms")).cast(pa.timestamp("us")),
        "date": ms.cast(pa.timestamp("ms")).cast(pa.date32(), safe=False),
        "ms": ms,
        "s": pc.divide(ms, 1000),
    }
    table = table.set_column(2, "ts", times[kind])
    for number in range(len(table)):
        lake.append(table.slice(number, 1))
    remove_files(lake, {"a", "d"})
    assert users_of(configured(lake), "2026-01-03") == ["b", "c"]
    assert look(lake)[0]["newest_ms"] == ms[3].as_py()


def test_a_day_is_that_of_the_calendars_zone_and_a_row_without_a_time_is_an_error(lake):
    table = rows("before 2 15", "first 2 16", "last 3 15", "after 3 16")
    lake.append(table)
    assert users_of(configured(lake), "2026-01-03", "Asia/Shanghai") == ["first", "last"]
    lake.append(table.set_column(2, "ts", pa.nulls(4, table.column("ts").type)))
    with pytest.raises(SchemaError, match="4 rows without a timestamp"):
        users_of(configured(lake), "2026-01-03")


@pytest.mark.parametrize(
    "values", [["2026-01-02", "20260103"], [20260102, 20260103], [dt.date(2026, 1, day) for day in (2, 3)]]
)
@pytest.mark.parametrize("layout", ["partitions", "files", "one file"])
def test_the_column_ds_divides_a_table_into_days(lake, values, layout):
    tables = [rows(f"{user} 9 1", ds=value) for user, value in zip("ab", values, strict=True)]
    for table in [pa.concat_tables(tables)] if layout == "one file" else tables:
        lake.append(table, "ds" if layout == "partitions" else None)
    if isinstance(values[0], str):
        lake.append(rows("c 9 1", ds="none"))
    source = open_source(configured(lake, "ds_folders"), "behavior_table")
    assert source.days() == {"2026-01-02": [str(values[0])], "2026-01-03": [str(values[1])]}
    assert users_of(source, "2026-01-03") == ["b"]


def test_a_source_is_read_as_of_the_version_at_which_it_was_opened(lake):
    lake.append(rows("a 3 1"))
    source = open_source(configured(lake), "behavior_table")
    lake.append(rows("b 3 1"))
    assert users_of(source, "2026-01-03") == ["a"]
    newer = open_source(configured(lake), "behavior_table")
    assert users_of(newer, "2026-01-03") == ["a", "b"]
    assert {source.version.split()[0], newer.version.split()[0]} == {lake.format}
    assert source.version != newer.version
    assert source.state(None).fingerprint != newer.state(None).fingerprint


def test_added_columns_are_null_before_and_types_are_those_of_parquet(lake):
    lake.append(rows("a 3 1"))
    tags = pa.array([[["x"], []]], pa.list_(pa.list_(pa.string())))
    lake.append(rows("b 3 2", price=pa.array([decimal.Decimal("1.50")], pa.decimal128(10, 2)), tags=tags, photo=[b"jpg"]))
    source = open_source(configured(lake, keep=["price", "tags", "photo"]), "behavior_table")
    ((_, found),) = read_days(source, ["2026-01-03"])
    found = found.sort_by("user_id")
    assert found.column("price").to_pylist() == [None, decimal.Decimal("1.50")]
    assert found.column("tags").to_pylist() == [None, [["x"], []]]
    assert [str(found.column(name).type) for name in ("tags", "photo")] == ["list<element: list<element: string>>", "binary"]
    assert found.schema.field("user_id").type == pa.string()


def test_renamed_columns_keep_their_rows_and_bounds(lake):
    lake.append(rows("a 2 1", "b 3 1"))
    if lake.format == "delta":
        rename_columns(lake.folder, {"ts": "when it was", "user_id": "who"})
    else:
        with lake.table.update_schema() as update:
            update.rename_column("ts", "when it was")
            update.rename_column("user_id", "who")
    table = configured(lake, columns={"event_time": "when it was", "user_id": "who"})
    assert users_of(table, "2026-01-03") == ["b"]
    assert open_source(table, "x").pieces()[0].newest("when it was") == dt.datetime(2026, 1, 3, 1, tzinfo=dt.UTC)


def test_deletes_beside_the_files_are_honoured_and_tell_what_has_changed(lake):
    lake.append(rows("a 2 1", "b 2 2"))
    lake.append(rows("c 3 1", "gone 3 2", "d 3 3"))
    table = configured(lake)
    before = open_source(table, "x").state().fingerprint
    (path,) = [path for path in lake.data_files() if len(pq.read_table(path)) == 3]
    if lake.format == "delta":
        delete_second_row(lake.folder, path.name)
    else:
        write_position_deletes(lake.table, f"file://{path}", [1])
    source = open_source(table, "x")
    assert users_of(source, "2026-01-03") == ["c", "d"]
    assert source.first_change(before, "ts") == dt.datetime(2026, 1, 3, 1, tzinfo=dt.UTC)
    if lake.format == "iceberg":
        write_equality_deletes(lake.table, "user_id", ["a"])
        with pytest.raises(TableError, match="does not yet support equality deletes"):
            users_of(configured(lake), "2026-01-03")


def look(lake, before=None, layout="time_column"):
    """Returns the sensor's state of a table, and the first late day since an earlier state."""
    found = SourceLanding(configured(lake, layout), name="x", timezone="UTC", before=before)
    return asdict(found.state), found.late_from


def test_the_first_late_day_is_that_of_the_oldest_row_added_or_removed(lake):
    """Rewritten files are no change; all rows of a table that was made again are."""
    lake.append(rows("a 1 1", "b 1 2"))
    lake.append(rows("c 5 1"))
    states = [look(lake)[0]]
    changes = [lake.rewrite, lambda: lake.append(rows("d 4 1")), lake.rewrite, lambda: lake.table.delete("user_id = 'a'")]
    for change, late in zip(changes, [None, "2026-01-04", None, "2026-01-01"], strict=True):
        change()
        state, found = look(lake, states[-1])
        assert found == late
        states.append(state)
    assert [look(lake, state)[1] for state in states] == ["2026-01-01"] * 4 + [None]
    assert look(lake, {"fingerprint": "5e6b35eb", "newest_ms": 1})[1] is None  # a look at files tells nothing
    lake.drop()
    lake.append(rows("a 3 1", "b 6 1"))
    assert [look(lake, state)[1] for state in states] == ["2026-01-03"] * 5


def test_versions_since_a_look_are_not_opened_one_by_one(tmp_path, monkeypatch):
    lake, opened, open_version = open_lake("delta", tmp_path), [], delta_source._open
    monkeypatch.setattr(delta_source, "_open", lambda *given: opened.append(given[2:]) or open_version(*given))
    lake.append(rows("a 6 1"))
    state, _ = look(lake)
    for day in (5, 4, 3):
        lake.append(rows(f"b {day} 1"))
    opened.clear()
    assert look(lake, state)[1] == "2026-01-03"
    assert opened == [(), (0,)]


def test_a_changed_day_of_the_column_ds_is_late_also_if_its_files_were_rewritten(lake):
    for ds in ("20260102", "20260103", "20260104"):
        lake.append(rows("a 1 1", ds=ds), "ds")
    before, _ = look(lake, layout="ds_folders")
    for ds in ("20260105", "20260103"):
        lake.append(rows("b 1 1", ds=ds), "ds")
    lake.rewrite()
    assert look(lake, before, "ds_folders")[1] == "2026-01-03"


def test_a_time_column_that_is_new_tells_no_change(lake):
    lake.append(rows("a 1 1").drop_columns("ts"))
    before = {"fingerprint": open_source(configured(lake), "x").state().fingerprint, "newest_ms": None}
    lake.table.delete("user_id = 'a'")
    lake.append(rows("a 1 1"))
    assert look(lake, before)[1] is None


def test_a_column_that_changes_its_type_is_an_error(lake):
    lake.append(rows("a 3 1"))
    if lake.format == "delta":
        write_deltalake(lake.folder, rows("a 3 1", ts=["soon"]), mode="overwrite", schema_mode="overwrite")
    else:
        with lake.table.update_schema(allow_incompatible_changes=True) as update:
            update.delete_column("ts")
        with lake.table.update_schema() as update:
            update.add_column("ts", StringType())
    with pytest.raises(SchemaError, match="table behavior_table, column event_time: expected "):
        users_of(configured(lake), "2026-01-03")


def test_a_table_that_is_not_there_and_a_missing_library_are_named(lake, monkeypatch):
    with pytest.raises(SourceMissingError, match="To fix: create it, or correct its location"):
        open_source(configured(lake), "behavior_table")
    monkeypatch.setitem(sys.modules, {"delta": "deltalake", "iceberg": "pyiceberg"}[lake.format], None)
    with pytest.raises(ConfigError, match=rf"pip install 'dssm-assets\[{lake.format}\]'"):
        open_source(configured(lake), "behavior_table")


def test_errors_have_no_login():
    options = {"type": "rest", "uri": "http://me:hush@127.0.0.1:9/tok3n", "token": "tok3n"}
    table = BehaviorTable(uri="shop", format="iceberg", table="shop.clicks", storage_options=options)
    with pytest.raises(TableError, match="ConnectionError") as raised:
        open_source(table, "behavior_table")
    assert not [word for word in ("hush", "tok3n") if word in str(raised.value)]
    assert raised.value.__cause__ is None
