"""Calendar arithmetic: hand-read clocks, and agreement with Python's own for any instant."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.features_raw.local_time import (
    day_text,
    days_since,
    each_row,
    first_day_text,
    hour_and_weekday,
    offset_steps,
    shift_day,
    window_start,
)

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe"]


def _ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


def test_shift_day_crosses_a_leap_day() -> None:
    assert shift_day("2024-03-01", -1) == "2024-02-29"
    assert shift_day("2023-12-31", 1) == "2024-01-01"


def test_window_includes_its_last_day() -> None:
    assert window_start("2024-01-07", 1) == "2024-01-07"
    assert window_start("2024-01-07", 7) == "2024-01-01"


def test_offset_changes_at_the_exact_instant() -> None:
    spring = _ms("2024-03-31T01:00:00+00:00")
    starts, offsets = offset_steps("Europe/Berlin", _ms("2024-03-01T00:00:00+00:00"), _ms("2024-05-01T00:00:00+00:00"))
    assert starts[1:] == [spring]
    assert offsets == [3_600_000, 7_200_000]


def test_unknown_time_zone_is_named() -> None:
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        offset_steps("Mars/Olympus", 0, 1)


@given(st.lists(st.integers(0, 2_000_000_000_000), min_size=1, max_size=5), st.sampled_from(ZONES))
def test_hour_and_weekday_agree_with_python(instants: list[int], timezone: str) -> None:
    # Kept within a month of each other, so that the zone's steps are few.
    near = [instants[0] + instant % 2_600_000_000 for instant in instants]
    hours, weekdays = hour_and_weekday(np.array(near, dtype=np.int64), timezone)
    clocks = [dt.datetime.fromtimestamp(ms / 1000, ZoneInfo(timezone)) for ms in near]
    assert list(hours) == [clock.hour for clock in clocks]
    assert list(weekdays) == [clock.weekday() for clock in clocks]


@pytest.mark.parametrize("timezone", ZONES)
def test_days_since_counts_local_dates(con, timezone: str) -> None:
    ds, zone = "2024-11-05", ZoneInfo(timezone)
    last = int(dt.datetime(2024, 11, 6, tzinfo=zone).timestamp() * 1000) - 1
    # Every half hour, over both clock changes of the year.
    instants = last - np.arange(0, 300 * 48) * 1_800_000
    table = ibis.memtable(pa.table({"t": instants}))
    column = days_since(table.t, ds=ds, timezone=timezone, first_day="2024-01-01")
    found = con.to_pyarrow(table.select(table.t, days=column).order_by(table.t.desc())).column("days").to_pylist()
    dates = [dt.datetime.fromtimestamp(ms / 1000, zone).date() for ms in instants.tolist()]
    assert found == [float((dt.date.fromisoformat(ds) - date).days) for date in dates]


def test_each_row_has_the_values_of_its_own_day(con) -> None:
    # A query over several days, the last of them in the next year and after a clock change.
    days = ["2024-10-26", "2024-12-31", "2025-03-31"]
    instant = _ms("2024-10-26 23:30")  # the 27th in Berlin
    table = ibis.memtable(pa.table({"ds": pa.array(days).cast(pa.date32()), "t": [instant] * 3}))
    day = each_row(days[-1], table, by=["ds"])
    rows = table.select(
        text=day_text(day),
        first=first_day_text(day, 31),
        age=days_since(table.t, ds=day, timezone="Europe/Berlin", first_day="2024-01-01"),
    )
    found = con.to_pyarrow(rows.order_by("text")).to_pylist()
    assert found == [
        {"text": "2024-10-26", "first": "2024-09-26", "age": -1.0},
        {"text": "2024-12-31", "first": "2024-12-01", "age": 65.0},
        {"text": "2025-03-31", "first": "2025-03-01", "age": 155.0},
    ]
    assert each_row("2025-03-31", table, by=[]) == "2025-03-31"


def test_days_since_keeps_null(con) -> None:
    table = ibis.memtable(pa.table({"t": pa.array([None, 0], pa.int64())}))
    column = days_since(table.t, ds="1970-01-03", timezone="UTC", first_day="1970-01-01")
    assert sorted(con.to_pyarrow(table.select(d=column)).column("d").to_pylist(), key=str) == [2.0, None]
