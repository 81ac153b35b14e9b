"""Calendar arithmetic: hand-read clocks, and agreement with Python's own for any instant."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.features_raw.local_time import (
    day_text,
    days_since,
    first_day_text,
    offset_steps,
    shift_day,
)

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe"]


def _ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


def test_shift_day_crosses_a_leap_day() -> None:
    assert shift_day("2024-03-01", -1) == "2024-02-29"
    assert shift_day("2023-12-31", 1) == "2024-01-01"


def test_offset_changes_at_the_exact_instant() -> None:
    spring = _ms("2024-03-31T01:00:00+00:00")
    starts, offsets = offset_steps("Europe/Berlin", _ms("2024-03-01T00:00:00+00:00"), _ms("2024-05-01T00:00:00+00:00"))
    assert starts[1:] == [spring]
    assert offsets == [3_600_000, 7_200_000]


@pytest.mark.parametrize("timezone", ZONES)
def test_days_since_counts_local_dates(con, timezone: str) -> None:
    ds, zone = "2024-11-05", ZoneInfo(timezone)
    last = int(dt.datetime(2024, 11, 6, tzinfo=zone).timestamp() * 1000) - 1
    # Every half hour, over both clock changes of the year.
    instants = last - np.arange(0, 300 * 48) * 1_800_000
    table = ibis.memtable(pa.table({"t": instants}))
    column = days_since(table.t, ds=ds, timezone=timezone, first_day="2024-01-01", last_day="2024-12-31")
    found = con.to_pyarrow(table.select(table.t, days=column).order_by(table.t.desc())).column("days").to_pylist()
    dates = [dt.datetime.fromtimestamp(ms / 1000, zone).date() for ms in instants.tolist()]
    assert found == [float((dt.date.fromisoformat(ds) - date).days) for date in dates]


def test_a_day_that_a_column_holds_has_the_values_of_a_text(con) -> None:
    days = ["2024-01-10", "2024-03-01", "2024-12-31"]
    table = ibis.memtable(pa.table({"day": days, "t": [_ms("2024-01-02 12:00")] * 3}))

    def values(ds):
        age = days_since(table.t, ds=ds, timezone="Europe/Berlin", first_day="2024-01-01", last_day="2024-12-31")
        return {"text": day_text(ds), "first": first_day_text(ds, 31), "age": age}

    found = con.to_pyarrow(table.select(**values(table.day)).order_by("text")).to_pylist()
    assert found == [con.to_pyarrow(table.select(**values(ds))).to_pylist()[0] for ds in days]
    assert [row["first"] for row in found] == ["2023-12-11", "2024-01-31", "2024-12-01"]
    assert [row["age"] for row in found] == [8.0, 59.0, 364.0]


def test_days_since_keeps_null(con) -> None:
    table = ibis.memtable(pa.table({"t": pa.array([None, 0], pa.int64())}))
    column = days_since(table.t, ds="1970-01-03", timezone="UTC", first_day="1970-01-01", last_day="1970-12-31")
    assert sorted(con.to_pyarrow(table.select(d=column)).column("d").to_pylist(), key=str) == [2.0, None]


def test_a_change_at_another_minute_than_a_quarter_is_placed_there():
    # St. John's set its clocks back at 00:01 local daylight time (UTC-2:30) on 7 November 2010.
    starts, offsets = offset_steps("America/St_Johns", _ms("2010-11-01T00:00:00+00:00"), _ms("2010-12-01T00:00:00+00:00"))
    assert (starts[1], offsets) == (_ms("2010-11-07T02:31:00+00:00"), [-9_000_000, -12_600_000])
