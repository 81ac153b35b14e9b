"""Whether a day has landed, for each layout of a source table, and the words that say so."""

import datetime as dt
import os
from dataclasses import asdict
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.config.pipeline import BehaviorTable, SourceTable
from dssm_assets.storage.sources.landing import SourceLanding

ZONE = "Asia/Shanghai"


def timestamp(text):
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp())


def look(table, **more):
    return SourceLanding(table, name="behavior_table", timezone=ZONE, **more)


def write(path, times, written="2024-01-09T12:00"):
    """Writes a log with these timestamps of Shanghai's clock; the file was written at another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.table({"user_id": ["u"] * len(times), "item_id": ["i"] * len(times), "event_time": [*map(timestamp, times)]})
    if path.suffix == ".csv":
        pcsv.write_csv(rows, path)
    else:
        pq.write_table(rows, path)
    os.utime(path, (timestamp(written), timestamp(written)))


def log(path, **more):
    form = "csv" if path.suffix == ".csv" else "parquet"
    return BehaviorTable(uri=str(path), format=form, layout="time_column", constant_event="buy", **more)


def test_a_snapshot_has_landed_on_every_day(tmp_path):
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "users.parquet")
    landing = look(SourceTable(uri=str(tmp_path / "users.parquet"))).landing_of_day("2031-05-05")
    assert landing.has_landed
    assert landing.reason == "behavior_table is one snapshot, valid on every day"


@pytest.mark.parametrize("label", ["2024-01-05", "20240105"])
def test_a_day_folder_has_landed_with_its_first_data_file(tmp_path, label):
    folder = tmp_path / "log" / f"ds={label}"
    folder.mkdir(parents=True)
    table = BehaviorTable(uri=str(tmp_path / "log"), layout="ds_folders")
    landing = look(table).landing_of_day("2024-01-05")
    assert (landing.has_landed, landing.reason) == (False, "behavior_table: the folder of 2024-01-05 has no data files yet")
    (folder / "_part.parquet.tmp").write_bytes(b"half")
    assert not look(table).landing_of_day("2024-01-05").has_landed
    pq.write_table(pa.table({"user_id": [1]}), folder / "part-0.parquet")
    assert look(table).landing_of_day("2024-01-05").reason == "behavior_table has 1 files for 2024-01-05"
    later = look(table).landing_of_day("2024-01-06")
    assert not later.has_landed
    assert later.reason.endswith("(newest: 2024-01-05)")


def test_a_configured_marker_file_is_required(tmp_path):
    folder = tmp_path / "log" / "ds=2024-01-05"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1]}), folder / "part-0.parquet")
    table = BehaviorTable(uri=str(tmp_path / "log"), layout="ds_folders")
    assert not look(table, marker="_SUCCESS").landing_of_day("2024-01-05").has_landed
    (folder / "_SUCCESS").touch()
    assert look(table, marker="_SUCCESS").landing_of_day("2024-01-05").has_landed


@pytest.mark.parametrize("may_be_empty", [True, False])
def test_an_empty_day_has_landed_once_a_later_folder_exists(tmp_path, may_be_empty):
    (tmp_path / "log" / "ds=2024-01-07").mkdir(parents=True)
    table = BehaviorTable(uri=str(tmp_path / "log"), layout="ds_folders", allow_empty_days=may_be_empty)
    assert look(table).landing_of_day("2024-01-06").has_landed is may_be_empty


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
@pytest.mark.parametrize(
    ("newest", "written", "has_landed", "reason"),
    [
        ("2024-01-06T00:00", "2024-01-05T23:00", True, "after 2024-01-05"),
        ("2024-01-05T23:59", "2024-01-06T00:10", True, "was written after the day ended"),
        ("2024-01-05T23:59", "2024-01-05T23:59", False, "was not written after 2024-01-05 ended"),
        ("2024-01-04T23:59", "2024-01-09T00:00", False, "none of 2024-01-05"),
    ],
)
def test_a_log_has_landed_by_its_newest_row_or_its_modification_time(tmp_path, name, newest, written, has_landed, reason):
    write(tmp_path / name, ["2024-01-02T10:00", newest], written)
    landing = look(log(tmp_path / name)).landing_of_day("2024-01-05")
    assert landing.has_landed is has_landed
    assert landing.reason.endswith(reason)


def test_an_unchanged_log_is_not_read_again(tmp_path):
    path = tmp_path / "log.csv"
    write(path, ["2024-01-05T10:00"])
    first = look(log(path)).state
    state = {**asdict(first), "newest_ms": timestamp("2024-02-02T00:00") * 1000}
    assert look(log(path), before=state).state.newest_ms == state["newest_ms"]
    write(path, ["2024-01-05T10:00", "2024-01-06T11:00"])
    assert look(log(path), before=state).state.newest_ms == timestamp("2024-01-06T11:00") * 1000


def test_an_empty_log_has_no_rows(tmp_path):
    write(tmp_path / "log.parquet", [])
    reason = look(log(tmp_path / "log.parquet")).landing_of_day("2024-01-05").reason
    assert reason == "behavior_table has no rows of times up to now"


def test_rows_without_a_time_may_be_left_out(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,event_time\nu,i,2024-01-05 10:00\nu,i,NA\nu,i,\n")
    landing = look(log(tmp_path / "log.csv", incomplete_rows="drop"))
    assert landing.state.newest_ms == timestamp("2024-01-05T10:00") * 1000


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_time_ahead_of_now_does_not_let_all_days_land(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    write(path, ["2024-01-05T10:00", "2099-12-31T23:59:59"])
    landed = {day: look(log(path)).landing_of_day(day).has_landed for day in ("2024-01-05", "2024-01-06")}
    assert landed == {"2024-01-05": True, "2024-01-06": False}
