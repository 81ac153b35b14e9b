"""The benchmark of backfills on tiny data: either way builds each date once, in the documented number of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.backfill import BACKFILL, MAX_RATIO, SINGLES, measure, render
from dssm_assets_tests.benchmarks.world import World


def _run_here(work: Any, /, **arguments: Any) -> Any:
    return work(**arguments)


def test_backfill_builds_each_day_once(tmp_path: Path) -> None:
    report = measure(World(rows=400, users=30, items=20, days=4), 1, tmp_path, run=_run_here)
    # Days 3 and 4 of the log. Day 1 is the window of day 2, which is built to warm up.
    assert report.dates == 2
    assert report.built == {BACKFILL: 2 * len(worlds.DAILY), SINGLES: 2 * len(worlds.DAILY)}
    assert report.runs == {BACKFILL: 1 + 2, SINGLES: 2 + 2}
    assert min(seconds for way in report.cpu_s.values() for seconds in way.values()) > 0
    assert "2 dates: " in render(report)


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_backfill_of_thirty_dates_costs_no_more_than_thirty_single_days(tmp_path: Path) -> None:
    report = measure(World(rows=61_000, users=2_000, items=1_000, days=61), 30, tmp_path)
    assert report.ratio <= MAX_RATIO, render(report)
