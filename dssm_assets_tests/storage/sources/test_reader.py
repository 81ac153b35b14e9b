"""Days of a source table come out of files of every layout, and every fault of the files is named."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.config.pipeline import BehaviorTable, SourceTable
from dssm_assets.core.errors import EmptyDayError, InputError, PartitionMissingError, SchemaError
from dssm_assets.core.sources.event_time import dates_of
from dssm_assets.storage.sources import json_lines, source_files
from dssm_assets.storage.sources.landing import SourceLanding
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import SourceMissingError
from dssm_assets.storage.sources.source_files import open_source

DAY_MS = 86_400_000
START_MS = 1_767_225_600_000  # 2026-01-01 00:00:00 UTC


def users(uri: Path | str, **config: Any) -> SourceTable:
    return SourceTable(uri=str(uri), **config)


def behavior(uri: Path | str, **config: Any) -> BehaviorTable:
    return BehaviorTable(uri=str(uri), **({"constant_event": "buy"} | config))


def read(table: SourceTable, *days: str, **options: Any) -> dict[str, list[dict[str, Any]]]:
    return {day: rows.to_pylist() for day, rows in read_all(table, *days, **options)}


def read_all(table: SourceTable, *days: str, **options: Any) -> list[tuple[str, pa.Table]]:
    name = "behavior_table" if isinstance(table, BehaviorTable) else "user_table"
    return list(read_days(open_source(table, name), days, **options))


def write(path: Path, columns: dict[str, Any] | pa.Table, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".csv":
        pcsv.write_csv(table, path)
    elif path.suffix == ".jsonl":
        write_lines(path, table.to_pylist())
    else:
        pq.write_table(table, path, **options)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(lines_of(*rows), encoding="utf-8")


def lines_of(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def log(days: list[int], **columns: Any) -> dict[str, Any]:
    """A log with one row per given day number, item ids 0, 1, 2, ..."""
    times = [START_MS + day * DAY_MS for day in days]
    return {"user_id": [1] * len(days), "item_id": list(range(len(days))), "event_time": times} | columns


def items_by_day(result: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    return {day: [row["item_id"] for row in rows] for day, rows in result.items()}


# Snapshots


def test_a_snapshot_is_valid_on_every_day(tmp_path: Path) -> None:
    write(tmp_path / "users.parquet", {"uid": [1, 2], "city": ["a", "b"], "ds": ["x", "x"]})
    result = read(users(tmp_path / "users.parquet", columns={"user_id": "uid"}), "2026-01-02", "2026-01-01", "2026-01-02")
    rows = [{"user_id": 1, "city": "a"}, {"user_id": 2, "city": "b"}]
    assert result == {"2026-01-01": rows, "2026-01-02": rows}
    assert list(result) == ["2026-01-01", "2026-01-02"]


def test_files_of_a_folder_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "u" / "part-2.parquet", {"user_id": pa.array([3], pa.int64()), "age": pa.array([30], pa.int32())})
    write(tmp_path / "u" / "part-1.parquet", {"user_id": pa.array([9], pa.int32())})
    write(tmp_path / "u" / "sub" / "part-0.parquet", {"user_id": pa.array([5], pa.int32())})
    write(tmp_path / "u" / "_temporary" / "part-9.parquet", {"user_id": [0]})
    (tmp_path / "u" / "_SUCCESS").touch()
    (tmp_path / "u" / "README.md").write_text("not data")
    ((_, rows),) = read_all(users(tmp_path / "u"), "2026-01-01")
    expected = {"user_id": pa.array([9, 3, 5], pa.int64()), "age": pa.array([None, 30, None], pa.int32())}
    assert rows.equals(pa.table(expected))


def test_keep_selects_the_unmapped_columns(tmp_path: Path) -> None:
    write(tmp_path / "u.parquet", {"uid": [1], "city": ["a"], "age": [3]})
    table = users(tmp_path / "u.parquet", columns={"user_id": "uid"}, keep=["age", "uid"])
    assert read(table, "2026-01-01") == {"2026-01-01": [{"user_id": 1, "age": 3}]}


CSV_TABLES: list[tuple[str, dict[str, Any], dict[str, list[Any]]]] = [
    (
        'user_id,code,age,score,title\n10,007,31,0.5,"a, b\nc"\n11,12,,2,NA\n',
        {},
        {"user_id": [10, 11], "code": ["007", "12"], "age": [31, None], "score": [0.5, 2.0], "title": ["a, b\nc", "NA"]},
    ),
    ('user_id,age,city\n1,NULL,\\N\n2,7,"null"\n', {}, {"user_id": [1, 2], "age": [None, 7], "city": [None, "null"]}),
    ("user_id,size\n17850.0,1.0\n7,2.0\n", {}, {"user_id": [17850, 7], "size": [1.0, 2.0]}),
    (
        "user_id;price;code;age\n1;1.012,5;1,5,2;3\n2;7;x;4\n",
        {"decimal_mark": ","},
        {"user_id": [1, 2], "price": [1012.5, 7.0], "code": ["1,5,2", "x"], "age": [3, 4]},
    ),
    (
        "user_id;zip;price\n00012;01234;0,5\n00000;20095;-1.200,25\n",
        {"decimal_mark": ","},
        {"user_id": ["00012", "00000"], "zip": ["01234", "20095"], "price": [0.5, -1200.25]},
    ),
    ("user_id;name\n1;a,b\n", {}, {"user_id": [1], "name": ["a,b"]}),
    ("user_id\tname\n1\ta;b\n", {}, {"user_id": [1], "name": ["a;b"]}),
    ("user_id|name\n1|a\n", {}, {"user_id": [1], "name": ["a"]}),
    ('"user_id";"name, first"\n1;a\n', {}, {"user_id": [1], "name, first": ["a"]}),
    ("user_id,name;first\n1,a;b\n", {}, {"user_id": [1], "name;first": ["a;b"]}),
]


@pytest.mark.parametrize(("text", "config", "expected"), CSV_TABLES)
def test_csv_types_are_inferred_from_all_rows_and_the_separator_from_the_first(
    tmp_path: Path, text: str, config: dict[str, Any], expected: dict[str, list[Any]]
) -> None:
    for file in (tmp_path / "plain.csv", tmp_path / "packed.csv.gz"):
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
        ((_, rows),) = read_all(users(file, format="csv", **config), "2026-01-01")
        assert repr(rows.to_pydict()) == repr(expected)  # 1 is not 1.0


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_rows_without_ids_or_time_are_left_out_if_asked_for(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"log.{ending}", log([0, 0, 0, 1], user_id=["a", None, "c", "d"], item_id=["x", "y", "", "z"]))
    file_format = {"jsonl": "json"}.get(ending, ending)
    table = behavior(tmp_path / f"log.{ending}", format=file_format, incomplete_rows="drop")
    lines: list[str] = []
    found = read_all(table, "2026-01-01", "2026-01-02", log=lines.append)
    assert [day.select(["user_id", "item_id"]).to_pylist() for _, day in found] == [
        [{"user_id": "a", "item_id": "x"}],
        [{"user_id": "d", "item_id": "z"}],
    ]
    assert lines == [f"{tmp_path}/log.{ending}: 2 of 4 rows are left out, without a user, an item or a time"]
    times = [START_MS, None, START_MS] if ending == "parquet" else [str(START_MS), "", str(START_MS)]
    write(tmp_path / f"log.{ending}", log([0, 0, 0], user_id=["NA", "b", "c"], event_time=times))
    ((_, rows),) = read_all(table, "2026-01-01")
    assert rows.column("user_id").to_pylist() == ["c"]
    write(tmp_path / "floats.parquet", log([0, 0], user_id=[7.0, float("nan")]))
    ((_, rows),) = read_all(behavior(tmp_path / "floats.parquet", incomplete_rows="drop"), "2026-01-01")
    assert rows.column("user_id").to_pylist() == [7.0]


def test_each_day_folder_says_what_is_left_out(tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        write(tmp_path / f"ds={day}/a.csv", log([0, 0], user_id=["a", None if day.endswith("2") else "b"]))
    lines: list[str] = []
    table = behavior(tmp_path, layout="ds_folders", format="csv", incomplete_rows="drop")
    found = read_all(table, "2026-01-01", "2026-01-02", log=lines.append)
    assert [day.num_rows for _, day in found] == [2, 1]
    assert lines == [f"{tmp_path}/ds=2026-01-02/a.csv: 1 of 2 rows are left out, without a user, an item or a time"]


def test_csv_ids_with_one_letter_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"user_id\n1\n"))
    (tmp_path / "b.csv").write_text("user_id\nu2\n")
    assert read(users(tmp_path, format="csv"), "2026-01-01") == {"2026-01-01": [{"user_id": "1"}, {"user_id": "u2"}]}


def test_sources_can_be_any_fsspec_url(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    with fs.open("/source-reader/users/ds=20260101/a.parquet", "wb") as handle:
        pq.write_table(pa.table({"user_id": [4]}), handle)
    table = users("memory://source-reader/users", layout="ds_folders")
    assert read(table, "2026-01-01") == {"2026-01-01": [{"user_id": 4}]}


def test_storage_options_reach_the_filesystem(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        archive.writestr("users/a.csv", "user_id\n3\n")
    table = users("zip://users", format="csv", storage_options={"fo": str(tmp_path / "source.zip")})
    assert read(table, "2026-01-01") == {"2026-01-01": [{"user_id": 3}]}


# JSON lines


LONG_IDS = ["123456789012345678901", "123456789012345678902", "1.5", "-5", '"guest"']
COUPONS = [None, {"code": "a", "of": None}, None, {"code": "b", "of": {"shop": 1}}]
JSON_TABLES: list[tuple[dict[str, str], dict[str, list[Any]]]] = [
    (
        {
            "u.jsonl": lines_of(
                {"user_id": 1, "at": "2026-01-31", "n": 1, "tags": [], "more": {"a": 1}},
                {"user_id": 2, "at": "2026-01-31T10:00:00+02:00", "none": None, "tags": ["x"]},
                {"at": "soon", "n": 2.5, "is_new": True, "user_id": 3, "more": {"b": "2026-01-01", "c": {"d": [1]}}, "x.y": 4},
            )
        },
        {
            "user_id": [1, 2, 3],
            "at": ["2026-01-31", "2026-01-31T10:00:00+02:00", "soon"],
            "n": [1.0, None, 2.5],
            "tags": [[], ["x"], None],
            "more.a": [1, None, None],
            "none": [None, None, None],
            "is_new": [None, None, True],
            "more.b": [None, None, "2026-01-01"],
            "more.c.d": [None, None, [1]],
            "x.y": [None, None, 4],
        },
    ),
    (
        {
            "u.jsonl": lines_of(
                {"user_id": 1, "note": True, "more": {"a": 1.5, "b": 1}},
                {"user_id": "guest", "note": "x", "more": {"a": "y", "b": 2}},
                {"user_id": 12, "is_new": True},
                {"user_id": 12, "is_new": 0},
            )
        },
        {
            "user_id": ["1", "guest", "12", "12"],
            "note": ["true", "x", None, None],
            "more.a": ["1.5", "y", None, None],
            "more.b": [1, 2, None, None],
            "is_new": [None, None, "true", "0"],
        },
    ),
    (
        {"u.jsonl": "".join(f'{{"user_id": {one}, "n": {{"é": [1.50, 2]}}, "at": "ü"}}\n' for one in LONG_IDS)},
        {"user_id": [*LONG_IDS[:4], "guest"], "n.é": [[1.5, 2.0]] * 5, "at": ["ü"] * 5},
    ),
    (
        {"u.jsonl": lines_of(*({"user_id": 1, "coupon": coupon} for coupon in COUPONS))},
        {"user_id": [1] * 4, "coupon.code": [None, "a", None, "b"], "coupon.of.shop": [None, None, None, 1]},
    ),
    (
        {
            "a.jsonl": lines_of({"user_id": 1, "age": None, "tags": []}),
            "b.jsonl": lines_of({"user_id": 2, "age": 30, "tags": [1]}),
        },
        {"user_id": [1, 2], "age": [None, 30], "tags": [[], [1]]},
    ),
    (
        {
            "a.ndjson.gz": '{"user_id": 1, "age": 30}\n\n',
            "b.jsonl": '{"city": "Ulm", "user_id": 2, "age": 1.5}\r\n{"user_id": 3}',
        },
        {"user_id": [1, 2, 3], "age": [30.0, 1.5, None], "city": [None, "Ulm", None]},
    ),
    (
        {"u.json": '[{"user_id": 1, "x": {"y": "}}{\\" \\\\"}},\n {"user_id":\r\n  2}\n]\n'},
        {"user_id": [1, 2], "x.y": ['}}{" \\', None]},
    ),
]


@pytest.mark.parametrize(("files", "expected"), JSON_TABLES)
def test_json_lines_have_one_schema_for_all_lines_of_all_files(
    tmp_path: Path, files: dict[str, str], expected: dict[str, list[Any]]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    ((_, rows),) = read_all(users(tmp_path, format="json"), "2026-01-01")
    assert rows.to_pydict() == expected


def test_ids_and_times_may_be_in_objects_of_json_lines(tmp_path: Path) -> None:
    lines = [
        {"user": {"id": 7}, "item": {"id": "a", "price": 3}, "meta": {"at": {"utc": "2026-01-01T10:00:00Z"}}},
        {"user": {"id": 8}, "item": {"id": "b"}, "meta": {"at": {"utc": "2026-01-02T10:00:00Z"}}, "item.price": 5},
        {"user": None, "item": {}, "meta": {"at": {"utc": "2026-01-02T11:00:00Z"}}},
    ]
    write_lines(tmp_path / "log.jsonl", lines[:2])
    names = {"user_id": "user.id", "item_id": "item.id", "event_time": "meta.at.utc"}
    with pytest.raises(SchemaError, match=r"several columns named item\.price"):
        read(behavior(tmp_path / "log.jsonl", format="json", columns=names), "2026-01-02")
    lines[1].pop("item.price")
    write_lines(tmp_path / "log.jsonl", lines)
    table = behavior(tmp_path / "log.jsonl", format="json", columns=names | {"price": "item.price"}, value_columns=["price"])
    found = read(table, "2026-01-01", "2026-01-02")
    assert [[*row.values()] for rows in found.values() for row in rows] == [
        [7, "a", "2026-01-01T10:00:00Z", 3],
        [8, "b", "2026-01-02T10:00:00Z", None],
        [None, None, "2026-01-02T11:00:00Z", None],
    ]


def test_a_key_that_one_file_of_json_lines_lacks_is_null(tmp_path: Path) -> None:
    rows = [{"user_id": 1, "item_id": n, "event_time": f"2026-01-0{n + 1}"} for n in range(3)]
    write_lines(tmp_path / "a.jsonl", [rows[0] | {"price": 2.5}])
    write_lines(tmp_path / "b.jsonl", rows[1:2])
    (tmp_path / "c.jsonl").touch()
    table = behavior(tmp_path, format="json", value_columns=["price"])
    found = read(table, "2026-01-01", "2026-01-02")
    assert [[row["price"] for row in day] for day in found.values()] == [[2.5], [None]]
    with pytest.raises(
        SchemaError, match=r"all of 3 files, column store \(our store\): expected the column to exist"
    ) as caught:
        read(table.model_copy(update={"context_columns": ["store"]}), "2026-01-01")
    assert len(caught.value.faults) == 1
    write_lines(tmp_path / "c.jsonl", [{"user_id": 1, "item_id": 3}])
    with pytest.raises(SchemaError, match="1 rows without a timestamp"):
        read(table, "2026-01-01")


def test_a_day_of_json_lines_without_any_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "ds=2026-01-01").mkdir()
    (tmp_path / "ds=2026-01-01" / "a.jsonl").write_text("\n")
    for layout in ("ds_folders", "time_column"):
        table = behavior(tmp_path, format="json", layout=layout, value_columns=["price"], allow_empty_days=True)
        ((_, rows),) = read_all(table, "2026-01-01")
        assert (rows.num_rows, rows.column_names) == (0, ["user_id", "item_id", "event_time", "price"])
    with pytest.raises(EmptyDayError, match=r"day 2026-01-01.*allow_empty_days"):
        read(table.model_copy(update={"allow_empty_days": False}), "2026-01-01")


def test_a_day_of_json_lines_may_lack_values_but_not_ids(tmp_path: Path) -> None:
    row = {"user_id": 1, "item_id": 2, "event_time": "2026-01-01"}
    for day, more in (("01", {"price": 3}), ("02", {})):
        (tmp_path / f"ds=2026-01-{day}").mkdir()
        write_lines(tmp_path / f"ds=2026-01-{day}" / "a.json", [row | more])
    table = behavior(tmp_path, format="json", layout="ds_folders", value_columns=["price"], context_columns=["store"])
    found = read(table, "2026-01-01", "2026-01-02")
    assert [[(row["price"], row["store"]) for row in day] for day in found.values()] == [[(3, None)], [(None, None)]]
    with pytest.raises(SchemaError, match=r"column who \(our user_id\): expected the column to exist"):
        read(table.model_copy(update={"columns": {"user_id": "who"}}), "2026-01-01")


@pytest.mark.parametrize(
    ("dates", "clocks", "time_format"),
    [
        (["2026-01-01", "2026-01-02"], ["23:58:00", "00:10:05"], None),
        (["2026-01-01", "2026-01-02"], ["23:58", " 0:10 "], "%Y-%m-%d %H:%M"),
        (["01/01/26", "1/2/26"], ["11:58 PM", "12:10 AM"], "%m/%d/%y %I:%M %p"),
        ([dt.date(2026, 1, 1), dt.date(2026, 1, 2)], [dt.time(23, 58), dt.time(0, 10)], None),
        ([dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2)], [dt.time(23, 58), dt.time(0, 10)], None),
    ],
)
def test_date_and_time_of_day_may_be_two_columns(
    tmp_path: Path, dates: list[Any], clocks: list[Any], time_format: str | None
) -> None:
    ending = "csv" if isinstance(dates[0], str) else "parquet"
    write(tmp_path / f"log.{ending}", {"user_id": [1, 2], "item_id": [1, 2], "Date": dates, "Time": clocks})
    table = behavior(
        tmp_path / f"log.{ending}",
        format=ending,
        columns={"event_time": "Date"},
        clock_column="Time",
        time_format=time_format,
    )
    found = read_all(table, "2026-01-01", "2026-01-02")
    assert [day.column("item_id").to_pylist() for _, day in found] == [[1], [2]]
    assert [set(day.column_names) for _, day in found] == [{"user_id", "item_id", "event_time"}] * 2
    state = SourceLanding(table, name="behavior_table", timezone="UTC").state
    assert state is not None, "the log was not looked at"
    assert state.newest_ms is not None, "no time was read"
    assert state.newest_ms // 60_000 * 60_000 == START_MS + DAY_MS + 10 * 60_000
    with pytest.raises(SchemaError, match=r"column clock \(the time of day\): expected the column to exist"):
        read_all(table.model_copy(update={"clock_column": "clock"}), "2026-01-01")


# Day folders


def test_day_folders_with_and_without_dashes_are_read(tmp_path: Path) -> None:
    write(tmp_path / "ds=2026-01-01" / "a.parquet", log([0]))
    write(tmp_path / "ds=20260102" / "a.parquet", log([1, 1]))
    write(tmp_path / "ds=20260103" / "a.parquet", log([2]))
    table = behavior(tmp_path, layout="ds_folders")
    assert items_by_day(read(table, "2026-01-02", "2026-01-01")) == {"2026-01-01": [0], "2026-01-02": [0, 1]}


def test_a_day_that_may_be_empty_needs_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "ds=2026-01-02" / "a.parquet", log([1]))
    table = behavior(tmp_path, layout="ds_folders", allow_empty_days=True)
    (first, empty), (second, full) = read_all(table, "2026-01-01", "2026-01-02")
    assert (first, empty.num_rows, second, full.num_rows) == ("2026-01-01", 0, "2026-01-02", 1)
    assert empty.schema.equals(full.schema)


@pytest.mark.parametrize(("ending", "text"), [("csv", "user_id,item_id,event_time\n"), ("json", "")])
def test_a_day_without_rows_has_the_types_of_the_first_day_with_rows(tmp_path: Path, ending: str, text: str) -> None:
    for day in ("01", "02"):
        (tmp_path / f"ds=2026-01-{day}").mkdir()
        (tmp_path / f"ds=2026-01-{day}" / f"a.{ending}").write_text(text)
    row = "1,2,2026-01-03" if text else '{"user_id": 1, "item_id": 2, "event_time": "2026-01-03"}'
    (tmp_path / "ds=2026-01-03").mkdir()
    (tmp_path / "ds=2026-01-03" / f"a.{ending}").write_text(f"{text}{row}\n")
    table = behavior(tmp_path, layout="ds_folders", format=ending, allow_empty_days=True)
    days = read_all(table, "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
    assert [rows.num_rows for _, rows in days] == [0, 0, 1, 0]
    assert {rows.schema for _, rows in days} == {days[2][1].schema}
    assert days[2][1].schema.field("user_id").type == pa.int64()


# Logs with a time column


@pytest.mark.parametrize(("ending", "file_format"), [("parquet", "parquet"), ("csv", "csv"), ("jsonl", "json")])
def test_rows_of_a_log_are_assigned_to_days_by_time(tmp_path: Path, ending: str, file_format: str) -> None:
    write(tmp_path / f"log.{ending}", log([2, 0, 1, 0, 2, 5]))
    table = behavior(tmp_path / f"log.{ending}", format=file_format)
    result = read(table, "2026-01-03", "2026-01-01")
    assert items_by_day(result) == {"2026-01-01": [1, 3], "2026-01-03": [0, 4]}
    assert result["2026-01-01"][0]["user_id"] == 1


@pytest.mark.parametrize(
    ("time_format", "values"),
    [("%d.%m.%Y", ["2.1.2026", "01.01.2026"]), ("%Y%m%d", [20260102, 20260101]), ("%d%m%Y", [2012026, 31122025])],
)
def test_days_of_a_log_with_a_time_format(tmp_path: Path, time_format: str, values: list[Any]) -> None:
    write(tmp_path / "log.parquet", log([0, 0], event_time=values), row_group_size=1)
    table = behavior(tmp_path / "log.parquet", time_format=time_format)
    assert items_by_day(read(table, "2026-01-02")) == {"2026-01-02": [0]}


def test_days_follow_the_zone_of_the_calendar(tmp_path: Path) -> None:
    write(
        tmp_path / "log.parquet", log([0, 0, 1]) | {"event_time": [START_MS - 3_600_000, START_MS, START_MS + 23 * 3_600_000]}
    )
    table = behavior(tmp_path / "log.parquet")
    assert items_by_day(read(table, "2026-01-01", timezone="Europe/Berlin")) == {"2026-01-01": [0, 1]}
    assert items_by_day(read(table, "2026-01-01", timezone="UTC")) == {"2026-01-01": [1, 2]}


def test_a_log_gives_only_the_columns_that_are_named(tmp_path: Path) -> None:
    raw = log([0], price=[1.5], store=[7], kind=["x"], request_id=["r"], noise=[0], ts=["2026-01-01T10:00:00Z"])
    write(tmp_path / "log.parquet", raw)
    config: dict[str, Any] = {"columns": {"event_time": "ts", "event": "kind"}, "constant_event": None}
    table = behavior(tmp_path / "log.parquet", value_columns=["price"], context_columns=["store"], **config)
    ((_, rows),) = read_all(table, "2026-01-01")
    assert sorted(rows.column_names) == ["event", "event_time", "item_id", "price", "request_id", "store", "user_id"]
    ((_, more),) = read_all(table.model_copy(update={"keep": ["noise"]}), "2026-01-01")
    assert set(more.column_names) - set(rows.column_names) == {"noise"}


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_row_groups_are_skipped_by_timestamp_statistics(tmp_path: Path, zone: str | None) -> None:
    for unit in ("s", "ms", "us", "ns"):
        times = pa.array([dt.datetime(2026, 1, 1, 23), dt.datetime(2026, 1, 2, 1)], pa.timestamp(unit))
        times = times.cast(pa.timestamp(unit, zone)) if zone else times
        write(tmp_path / f"{unit}.parquet", log([0, 0]) | {"event_time": times}, row_group_size=1)
        assert items_by_day(read(behavior(tmp_path / f"{unit}.parquet"), "2026-01-02")) == {"2026-01-02": [1]}


def test_every_empty_day_is_named(tmp_path: Path) -> None:
    write(tmp_path / "log.parquet", log([1]))
    days = ("2026-01-01", "2026-01-02", "2026-01-03")
    with pytest.raises(EmptyDayError, match=r"(?s)2 faults.*day 2026-01-01.*day 2026-01-03.*allow_empty_days"):
        read(behavior(tmp_path / "log.parquet"), *days)
    result = read(behavior(tmp_path / "log.parquet", allow_empty_days=True), *days)
    assert items_by_day(result) == {"2026-01-01": [], "2026-01-02": [0], "2026-01-03": []}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 5 * DAY_MS), min_size=1, max_size=60), st.integers(1, 7), st.sampled_from(["UTC", "Asia/Kathmandu"])
)
def test_days_partition_the_log(tmp_path_factory: pytest.TempPathFactory, offsets: list[int], size: int, timezone: str) -> None:
    folder = tmp_path_factory.mktemp("log")
    times = pa.array([START_MS + offset for offset in offsets])
    raw = pa.table({"user_id": [1] * len(times), "item_id": range(len(times)), "event_time": times})
    write(folder / "a.parquet", raw.slice(0, len(raw) // 2), row_group_size=size)
    write(folder / "b.parquet", raw.slice(len(raw) // 2), row_group_size=size)
    days = dates_of(times, timezone).cast(pa.string()).to_pylist()
    expected: dict[str, list[int]] = {day: [] for day in sorted(set(days))}
    for item, day in enumerate(days):
        expected[day].append(item)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "BLOCK_ROWS", 3)
        assert items_by_day(read(behavior(folder), *expected, timezone=timezone)) == expected


# Faults


FOLDERS: dict[str, Any] = {"layout": "ds_folders"}
NO_FOLDERS = r"folders ds=YYYY-MM-DD or ds=YYYYMMDD, got none.*tables\.behavior\.layout"
WRONG_LOGS: list[tuple[list[str], str, dict[str, Any], type[InputError], str]] = [
    (
        ["ds=2026-01-02/a.parquet"],
        "",
        FOLDERS,
        PartitionMissingError,
        r"(?s)2 faults.*day 2026-01-01: expected a folder ds=2026-01-01 or ds=20260101.*\(1 from 2026-01-02.*day 2026-01-03",
    ),
    (
        ["ds=2026-01-01/a.parquet", "ds=20260101/a.parquet"],
        "",
        FOLDERS,
        PartitionMissingError,
        r"day 2026-01-01: expected one folder, got both .*ds=2026-01-01 and .*ds=20260101",
    ),
    (["log.parquet"], "", FOLDERS, PartitionMissingError, NO_FOLDERS),
    (["log.parquet"], "log.parquet", FOLDERS, PartitionMissingError, NO_FOLDERS),
    (["log.parquet"], "", {}, SchemaError, r"behavior_table, column event_time.*1 rows without a timestamp"),
    (
        [],
        "no.parquet",
        {},
        SourceMissingError,
        r"table behavior_table, .*no\.parquet.*no such file or folder.*tables\.behavior\.uri",
    ),
]


@pytest.mark.parametrize(("names", "place", "config", "error", "message"), WRONG_LOGS)
def test_logs_that_lack_a_place_a_day_or_a_time_are_refused(
    tmp_path: Path, names: list[str], place: str, config: dict[str, Any], error: type[InputError], message: str
) -> None:
    for name in names:
        write(tmp_path / name, log([0, 0], event_time=[START_MS, None]))
    with pytest.raises(error, match=message):
        read(behavior(tmp_path / place, **config), "2026-01-01", "2026-01-02", "2026-01-03")


def test_missing_mapped_columns_are_named_with_those_that_exist(tmp_path: Path) -> None:
    write(tmp_path / "log.parquet", {"household": [1], "product": [2], "at": [3]})
    table = behavior(tmp_path / "log.parquet", columns={"user_id": "house"}, value_columns=["price"])
    with pytest.raises(SchemaError) as caught:
        read(table, "2026-01-01")
    text = str(caught.value)
    assert [fault.where.split(", ")[-1] for fault in caught.value.faults] == [
        "column event_time (our event_time)",
        "column house (our user_id)",
        "column item_id (our item_id)",
        "column price (our price)",
    ]
    assert "got columns household, product, at" in text
    assert "tables.behavior.columns.user_id" in text


def test_duplicate_column_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "u.parquet", {"uid": [1], "user_id": [2]})
    table = users(tmp_path / "u.parquet", columns={"user_id": "uid"})
    with pytest.raises(
        SchemaError, match="column user_id: expected one source column for each of our columns, got uid mapped to it"
    ):
        read(table, "2026-01-01")
    assert read(table.model_copy(update={"keep": []}), "2026-01-01") == {"2026-01-01": [{"user_id": 1}]}


NO_COLUMN = "expected the column to exist, got columns none"
WRONG_FILES: list[tuple[dict[str, Any], str, str]] = [
    ({"users.csv": "user_id\n1\n"}, "parquet", r"files that end in \.parquet or \.pq, got users\.csv.*tables\.user\.format"),
    ({"a.parquet": {"user_id": [1]}, "b.parquet": {"uid": [1]}}, "parquet", r"b\.parquet, column user_id \(our user_id\)"),
    (
        {"a.parquet": {"user_id": [1]}, "b.parquet": {"user_id": ["u"]}},
        "parquet",
        r"column user_id.*compatible types.*int64 in .*a\.parquet, string in .*b\.parquet",
    ),
    ({"empty.csv": ""}, "csv", r"empty\.csv: expected a readable csv file.*Empty CSV"),
    ({"u.parquet": "user_id\n1\n"}, "parquet", r"u\.parquet: expected a readable parquet file.*tables\.user\.format"),
    ({"u": {"user_id": [1]}}, "csv", r"expected a readable csv file, got a parquet file"),
    ({"log.csv": gzip.compress(b"user_id,age\nu1,3\n", mtime=10)}, "csv", "log.csv"),  # its newlines make two lines of it
    ({"log.csv.gz": gzip.compress(b"user_id,age\nu1,3\n" * 999)[:-30]}, "csv", "log.csv.gz"),
    ({"log.csv.gz": b"user_id,age\nu1,3\n"}, "csv", "log.csv.gz"),
    ({"log.csv": "user_id,age,age\nu1,3,4\n"}, "csv", "log.csv"),
    ({"u.csv": "user_id,age\n1\n"}, "csv", r"expected a readable csv file.*Expected 2 columns, got 1"),
    (
        {"u.jsonl": '{"user_id": 1}\n{"user_id":'},
        "json",
        r"u\.jsonl: expected JSON lines: an object per line, got Malformed JSON at byte 12 in line 3: .*tables\.user\.format",
    ),
    ({"u.jsonl": '{"user_id": 1}\n{"user_id":\n"a"}'}, "json", "got Malformed JSON at byte 12 in line 3"),
    ({"u.jsonl": '{"user_id": 1}\n{"user_id": ["a"]}'}, "json", r'one type per key, got \["VARCHAR"\] and "UBIGINT"'),
    ({"u.jsonl": "{'user_id': 1}\n"}, "json", "got Malformed JSON at byte 2"),
    ({"u.jsonl": '[{"user_id": 1}'}, "json", "got Malformed JSON at byte 15"),
    ({"u.jsonl": '[{"user_id": 1},]'}, "json", "got Malformed JSON"),
    ({"u.jsonl": '[{"user_id": 1}, 2]'}, "json", "an object per line, got JSON transform error"),
    ({"u.jsonl": "[1]"}, "json", NO_COLUMN),
    ({"u.jsonl": "null"}, "json", NO_COLUMN),
    ({"u.jsonl": ""}, "json", NO_COLUMN),
    ({"u.jsonl": b'{"user_id": "\x8f"}'}, "json", r"u\.jsonl: expected text in UTF-8, got the byte 0x8F in line 1"),
    ({"u.jsonl": b'{"user_id": 1, "\x8f": 2}'}, "json", r"u\.jsonl: expected text in UTF-8, got the byte 0x8F in line 1"),
]


@pytest.mark.parametrize(("files", "file_format", "message"), WRONG_FILES)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, files: dict[str, Any], file_format: str, message: str) -> None:
    for name, content in files.items():
        if isinstance(content, dict):
            write(tmp_path / name, content)
        else:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((SchemaError, SourceMissingError), match=message):
        read(users(tmp_path, format=file_format, columns={"user_id": "user_id"}), "2026-01-01")


# What is no file


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.parent / "gone")], ids=["pipe", "dangling link"])
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_pipes_and_dangling_links_are_refused(tmp_path: Path, make: Callable[[Path], None], name: str, is_alone: bool) -> None:
    make(tmp_path / name)
    source = behavior(tmp_path / name if is_alone else tmp_path, format=name[2:])
    with pytest.raises(InputError, match=r"not a regular file|[Nn]o such file"):
        read(source, "2026-01-01")
    with pytest.raises(InputError, match=r"not a regular file|[Nn]o such file"):
        SourceLanding(source, name="behavior_table", timezone="UTC")


@pytest.mark.parametrize("uri", ["/", "//", "/dev/zero", "/dev/null", "zip://", "zip:///dev/null", "s3://"])
def test_places_without_a_table_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"table user_table"):
        read(users(uri), "2026-01-01")


def test_a_folder_that_is_named_by_no_day_is_no_day(tmp_path: Path) -> None:
    write(tmp_path / "ds=2024-02-30" / "a.parquet", {"user_id": [1]})
    write(tmp_path / "ds=20240229" / "a.parquet", {"user_id": [1]})
    assert list(open_source(users(tmp_path, layout="ds_folders"), "user_table").days()) == ["2024-02-29"]


# Columns


def test_keys_of_json_beyond_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_COLUMNS", 50)
    wide = {"user_id": [1], **{f"c{number}": [number] for number in range(50)}}
    write(tmp_path / "u.jsonl", wide)
    with pytest.raises(SchemaError, match=r"expected at most 50 columns to be read, got 51"):
        read(users(tmp_path / "u.jsonl", format="json"), "2026-01-01")


def test_float16_is_read_as_float32(tmp_path: Path) -> None:
    write(tmp_path / "u.parquet", {"user_id": [1, 2], "age": pa.array([1.5, None], pa.float16())})
    ((_, rows),) = read_all(users(tmp_path / "u.parquet"), "2026-01-01")
    assert (rows.schema.field("age").type, rows.column("age").to_pylist()) == (pa.float32(), [1.5, None])


@pytest.mark.parametrize(("time", "kind"), [(2**62, "us"), (-(2**47), "ms"), (2**31 - 1, None)])
def test_times_beyond_the_calendar_are_refused(tmp_path: Path, time: int, kind: str | None) -> None:
    times = (
        pa.array([0, time], pa.int64()).cast(pa.timestamp(kind)) if kind else pa.array([0, time], pa.int32()).cast(pa.date32())
    )
    write(tmp_path / "log.parquet", {"user_id": [1, 2], "item_id": [1, 2], "event_time": times})
    with pytest.raises(SchemaError, match=r"column event_time: expected times of the years 1 to 9999"):
        read(behavior(tmp_path / "log.parquet"), "2026-01-01")


@pytest.mark.parametrize(
    ("name", "rows"), [("log.parquet", 3), ("log.csv", 4), ("log.csv.gz", None)], ids=["parquet", "a header counts", "unknown"]
)
def test_rows_are_estimated_before_a_file_is_read(tmp_path: Path, name: str, rows: int | None) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"item_id": ["a", "b", "c"]}), path)
    else:
        path.write_bytes(gzip.compress(b"item_id\na\n") if name.endswith(".gz") else b"item_id\na\nb\nc\n")
    file_format = "parquet" if name.endswith(".parquet") else "csv"
    table = SourceTable(uri=str(path), format=file_format, columns={"item_id": "item_id"})
    assert [piece.estimate_rows() for piece in open_source(table, "item_table").pieces()] == [rows]
