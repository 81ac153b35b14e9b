"""Moments however a source writes them, and the days they fall on."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms

NOON_MS = 1_767_268_800_000  # 2026-01-01 12:00:00 UTC


def read(values: Any, unit: str = "auto", timezone: str = "UTC", time_format: str | None = None) -> list[int | None]:
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    times = to_event_time_ms(column, unit=unit, timezone=timezone, where="column event_time", time_format=time_format)
    result: list[int | None] = times.to_pylist()
    return result


@pytest.mark.parametrize(
    "values",
    [
        pa.array([NOON_MS // 1000], pa.int64()),
        pa.array([NOON_MS // 1000], pa.uint32()),
        pa.array([NOON_MS], pa.int64()),
        pa.array([float(NOON_MS // 1000)]),
        pa.array([str(NOON_MS // 1000)]),
        pa.array([str(NOON_MS)], pa.large_string()),
        pa.array(["2026-01-01T12:00:00Z"]),
        pa.array(["2026-01-01 12:00"]),
        pa.array([" 2026-01-01 12:00:00 "]),
        pa.array(["2026-01-01T14:00:00+02:00"]),
        pa.array(["2026-01-01T06:30:00-0530"]),
        pa.array(["2026-01-01T13:00:00.000999+01"]),
        pa.array([NOON_MS // 1000], pa.timestamp("s")),
        pa.array([NOON_MS], pa.timestamp("ms", "Asia/Tokyo")),
        pa.array([NOON_MS * 1000 + 999], pa.timestamp("us")),
        pa.array([NOON_MS * 1_000_000], pa.timestamp("ns")),
        pa.array(["2026-01-01T12:00:00Z"]).dictionary_encode(),
        pa.chunked_array([pa.array([], pa.int64()), pa.array([NOON_MS])]),
    ],
    ids=lambda values: str(values.type),
)
def test_every_time_format_gives_the_same_milliseconds(values: Any) -> None:
    assert read(values) == [NOON_MS]


def test_fractions_of_a_second_are_cut_to_milliseconds() -> None:
    assert read(["2026-01-01 12:00:00.5", "2026-01-01 12:00:00,1239Z"]) == [NOON_MS + 500, NOON_MS + 123]


def test_missing_timestamps_stay_null() -> None:
    assert read([None, "", "2026-01-01 12:00Z"]) == [None, None, NOON_MS]
    assert read([None, NOON_MS]) == [None, NOON_MS]
    assert read(pa.nulls(2)) == [None, None]


def test_timestamps_without_a_zone_are_wall_clock_time() -> None:
    hour = 3_600_000
    naive = pa.array([NOON_MS], pa.timestamp("ms"))
    assert read(naive, timezone="Europe/Berlin") == [NOON_MS - hour]
    assert read(["2026-01-01 12:00", "2026-01-01 12:00Z"], timezone="Europe/Berlin") == [NOON_MS - hour, NOON_MS]
    assert read(["2026-01-01 12:00:00 UTC"], timezone="Europe/Berlin") == [NOON_MS]
    assert read(pa.array([dt.date(2026, 1, 1)]), timezone="Europe/Berlin") == [NOON_MS - 13 * hour]


def test_ambiguous_and_skipped_wall_clock_times() -> None:
    # Berlin 2024-03-31: 02:00 becomes 03:00, which is 01:00 UTC. 2024-10-27: 03:00 becomes 02:00, so 02:30 is twice.
    first = int(dt.datetime(2024, 3, 31, 1, 0, tzinfo=dt.UTC).timestamp() * 1000)
    earlier = int(dt.datetime(2024, 10, 27, 0, 30, tzinfo=dt.UTC).timestamp() * 1000)
    assert read(["2024-03-31 02:30", "2024-10-27 02:30"], timezone="Europe/Berlin") == [first, earlier]


def test_a_given_unit_overrides_the_guess() -> None:
    assert read([5_000], unit="s") == [5_000_000]
    assert read([5_000], unit="ms") == [5_000]


def test_text_in_a_format_is_read_by_it_alone() -> None:
    hour = 3_600_000
    read_german = partial(read, time_format="%d.%m.%Y %H:%M", timezone="Europe/Berlin")
    assert read_german(["1.1.2026 13:00", " 01.01.2026 13:00 ", "", None]) == [NOON_MS, NOON_MS, None, None]
    assert read_german(pa.array([NOON_MS // 1000])) == [NOON_MS]
    assert read([20260101], time_format="%Y%m%d") == [NOON_MS - 12 * hour]
    assert read([60131, 260131], time_format="%y%m%d") == read(["2006-01-31", "2026-01-31"])
    assert read([1022026], time_format="%d%m%Y") == read(["2026-02-01"])
    assert read([20260101.0, None], time_format="%Y%m%d") == [NOON_MS - 12 * hour, None]
    with pytest.raises(SchemaError, match=r"expected whole numbers, got 1 values.*20260101\.5"):
        read([20260101.5], time_format="%Y%m%d")
    with pytest.raises(
        SchemaError,
        match=r"text in the format '%d\.%m\.%Y %H:%M', got 1 others, such as \['2026-01-01 13:00'\].*correct time_format",
    ):
        read_german(["1.1.2026 13:00", "2026-01-01 13:00"])
    with pytest.raises(SchemaError, match=r"others, such as \['31\.2\.2026 13:00'\]"):
        read_german(["31.2.2026 13:00"])


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        ([1_700_000_000, 1_700_000_000_000], "auto", "1 values that look like seconds and 1 that look like milliseconds"),
        ([1_700_000_000_000_000], "auto", "micro- or nanoseconds.*divide in the source"),
        ([1_700_000_000_000], "s", "seconds, as time_unit says.*set time_unit to ms"),
        ([1_700_000_000.5], "auto", "1 values of type double that are not exact whole numbers"),
        (["yesterday", "2026-01-01", "1700000000"], "auto", r"2 others, such as \['1700000000', 'yesterday'\]"),
        (["2026-13-01 10:00:00"], "auto", "existing days and times.*2026-13-01"),
        ([True], "auto", "expected timestamps, got bool"),
    ],
)
def test_values_that_are_not_timestamps_are_refused(values: Any, unit: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(values, unit=unit)


def test_days_follow_the_zone_and_daylight_saving() -> None:
    # 2024-03-30 23:00 UTC is midnight in Berlin (UTC+1); 2024-03-31 22:00 UTC is midnight one day later (UTC+2).
    moments = [dt.datetime(2024, 3, 30, 22, 59), dt.datetime(2024, 3, 30, 23, 0), dt.datetime(2024, 3, 31, 22, 0)]
    column = pa.array([int(moment.replace(tzinfo=dt.UTC).timestamp() * 1000) for moment in moments] + [-1, None])
    assert dates_of(column, "Europe/Berlin").cast(pa.string()).to_pylist() == [
        "2024-03-30",
        "2024-03-31",
        "2024-04-01",
        "1970-01-01",
        None,
    ]


@given(
    st.lists(
        st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2037, 1, 1), timezones=st.just(dt.UTC)), min_size=1, max_size=20
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_iso_text_and_days_agree_with_python(moments: list[dt.datetime], timezone: str) -> None:
    zone = ZoneInfo(timezone)
    text = [moment.astimezone(zone).isoformat(timespec="milliseconds") for moment in moments]
    expected = [(moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1) for moment in moments]
    assert read(text, timezone="Asia/Tokyo") == expected
    assert dates_of(pa.array(expected), timezone).cast(pa.string()).to_pylist() == [value[:10] for value in text]
