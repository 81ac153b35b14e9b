"""The days of a scene, and those that the UI plots."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from dagster._core.definitions.partitions.context import PartitionLoadingContext
from dagster._core.definitions.temporal_context import TemporalContext

from dssm_assets.core.config.pipeline import Calendar
from dssm_assets.defs.scene import Scene, daily_partitions
from dssm_assets_tests import worlds

ZONE = "Asia/Shanghai"
NOW = dt.datetime(2026, 3, 5, 1, 0, tzinfo=dt.UTC)
"""9 a.m. of 2026-03-05 in that zone."""
DAYS_OF_A_PLOT = 120


def _calendar(start: str, end: str | None) -> Calendar:
    return Calendar.model_validate({"start": start, "end": end, "timezone": ZONE})


def test_calendar_without_end_ends_yesterday() -> None:
    days = daily_partitions(_calendar("2026-03-01", None))
    assert days.get_partition_keys(current_time=NOW) == [f"2026-03-0{day}" for day in (1, 2, 3, 4)]


@pytest.mark.parametrize("end", ["2024-01-12", "2026-03-03", "2026-03-04"])
@pytest.mark.parametrize("later", [0, 1, 400])
def test_ended_calendar_keeps_exactly_its_days_however_long_a_process_lives(end: str, later: int) -> None:
    calendar = _calendar("2024-01-01", end)
    days = daily_partitions(calendar, dt.date(2026, 3, 5))
    keys = days.get_partition_keys(current_time=NOW + dt.timedelta(days=later))
    assert keys[0] == "2024-01-01"
    assert keys[-1] == end
    assert len(keys) == (dt.date.fromisoformat(end) - calendar.start).days + 1


@pytest.mark.parametrize("end", ["2026-03-05", "2026-03-09"])
def test_running_calendar_goes_on_to_its_end(end: str) -> None:
    days = daily_partitions(_calendar("2026-03-01", end), dt.date(2026, 3, 5))
    assert days.get_partition_keys(current_time=NOW)[-1] == "2026-03-04"
    assert days.get_partition_keys(current_time=NOW + dt.timedelta(days=30))[-1] == end


@pytest.mark.parametrize("end", [None, "2024-01-04", "2024-01-07", "2024-01-12", "2999-01-01"])
@pytest.mark.parametrize("span", [1, 3])
def test_last_days_are_those_of_dagsters_partitions(tmp_path: Path, end: str | None, span: int) -> None:
    loaded = worlds.write_config(tmp_path, {"calendar": {"end": end}, "evaluation": {"span_days": span}})
    scene = Scene(loaded)
    assert scene.last_day(is_windowed=False) == scene.daily.get_last_partition_key()
    assert scene.last_day(is_windowed=True) == scene.windowed.get_last_partition_key()


def test_plots_show_the_last_days_of_a_calendar_that_ended_long_ago() -> None:
    days = daily_partitions(_calendar("2024-01-01", "2024-01-12"), dt.date(2026, 3, 5))
    context = PartitionLoadingContext(
        temporal_context=TemporalContext(effective_dt=NOW, last_event_id=None), dynamic_partitions_store=None
    )
    plotted = days.get_paginated_partition_keys(context=context, limit=DAYS_OF_A_PLOT, ascending=False).results
    assert list(plotted)[-12:] == [f"2024-01-{day:02d}" for day in range(12, 0, -1)]


def test_backfill_continues_after_a_restart_of_the_code_location_on_another_date() -> None:
    # Dagster looks up its days at the time of the request, in the newly loaded definition.
    calendar = _calendar("2024-01-01", "2024-01-12")
    before, after = (daily_partitions(calendar, day) for day in (dt.date(2026, 3, 5), dt.date(2026, 3, 25)))
    requested = before.empty_subset().with_partition_keys(["2024-01-03", "2024-01-12"])
    assert after.get_partition_keys(current_time=NOW)[-1] == "2024-01-12"
    found = after.subset_with_all_partitions() & requested
    assert sorted(found.get_partition_keys()) == ["2024-01-03", "2024-01-12"]
