"""Runs and backfills that a user starts by clicking, on the real webserver and daemon.

All are launched while no daemon runs: they wait, and the daemon starts them as soon as it is up. A running daemon
checks for backfills every 30 seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import dagster as dg
import pytest
from playwright.sync_api import expect

from dssm_assets.defs.scene import MADE_FOR_TAG
from dssm_assets_tests import worlds
from dssm_assets_tests.browser.processes import Processes
from dssm_assets_tests.browser.ui import Ui

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ONE_DAY = worlds.DAYS[4]
RANGE = worlds.DAYS[:3]
WINDOWS = worlds.DAYS[-3:-1]
LACKING = {"user_features_fg": worlds.DAYS[4], "positive_sample": worlds.DAYS[5]}
"""What both windows need, and what is not there when they are launched."""
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
WAIT_SECONDS = 90.0


def _between(days: Sequence[str]) -> str:
    return f"[{days[0]}...{days[-1]}]"


def _ranges(processes: Processes, backfill: str) -> list[tuple[str, str, str]]:
    """Returns id, first and last day of each run of a backfill."""
    found = []
    for run in processes.client.state(backfill)["runs"]:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        found.append((run["id"], tags[RANGE_TAGS[0]], tags[RANGE_TAGS[1]]))
    return found


@pytest.fixture(scope="module")
def launched() -> dict[str, str]:
    """Returns name -> id of every launch; filled by the first test."""
    return {}


def test_run_and_two_backfills_are_launched_by_clicking(ui: Ui, processes: Processes, launched: dict[str, str]) -> None:
    ui.open("/asset-groups")
    ui.select_in_graph("sample_fg")
    run = ui.launch("Materialize selected…", ONE_DAY)
    ui.open("/locations/dssm_assets/jobs/daily_tables")
    tables = ui.launch("Materialize all…", _between(RANGE))
    ui.open("/assets/training_window?view=partitions")
    expect(ui.page.get_by_text("Materialized (1)")).to_be_visible()
    windows = ui.launch("Materialize…", _between(WINDOWS))
    ui.open("/locations/dssm_assets/jobs/train_and_evaluate")
    ui.page.get_by_role("button", name="Materialize all…").first.click()
    box = ui.dialog.get_by_placeholder("ex: ")
    box.fill(worlds.DAYS[4])  # its window begins before the calendar
    box.press("Enter")
    expect(ui.page.get_by_text(f"Could not find partition: {worlds.DAYS[4]}")).to_be_visible()
    for table, ds in LACKING.items():
        shutil.rmtree(processes.home / "tables" / table / f"ds={ds}")
    launched.update(run=run, tables=tables, windows=windows)
    processes.start_daemon()


def test_run_of_one_partition_succeeds(ui: Ui, processes: Processes, launched: dict[str, str]) -> None:
    ui.wait_for_run(launched["run"], WAIT_SECONDS)
    ui.open_partition("sample_fg", ONE_DAY)
    expect(ui.page.get_by_role("link", name=launched["run"][:8])).to_be_visible()


def test_range_of_daily_tables_is_one_run(ui: Ui, processes: Processes, launched: dict[str, str]) -> None:
    ui.wait_for_runs(launched["tables"], 1, WAIT_SECONDS)
    ((run, first, last),) = _ranges(processes, launched["tables"])
    assert (first, last) == (RANGE[0], RANGE[-1])
    ui.open_partition("positive_sample", RANGE[1])
    expect(ui.page.get_by_role("link", name=run[:8])).to_be_visible()


def test_windowed_assets_take_one_run_per_date(ui: Ui, processes: Processes, launched: dict[str, str]) -> None:
    ui.wait_for_runs(launched["windows"], len(WINDOWS), WAIT_SECONDS)
    assert sorted((first, last) for _, first, last in _ranges(processes, launched["windows"])) == [(ds, ds) for ds in WINDOWS]
    ui.open("/assets/training_window?view=partitions")
    expect(ui.page.get_by_text(f"Materialized ({1 + len(WINDOWS)})")).to_be_visible()
    expect(ui.page.get_by_text("Missing (3)")).to_be_visible()  # of the six days that have a whole window
    for table, ds in LACKING.items():  # made once, in a run for the window that came first
        assert (processes.home / "tables" / table / f"ds={ds}" / "_manifest.json").is_file()
        ui.open_partition(table, ds)
    with dg.DagsterInstance.from_config(str(processes.home)) as instance:
        made = [run for run in instance.get_runs() if MADE_FOR_TAG in run.tags]
    assert {run.tags[MADE_FOR_TAG] for run in made} <= {run[:8] for run, _, _ in _ranges(processes, launched["windows"])}
    assert {(run.job_name, run.remote_job_origin.location_name) for run in made} == {("daily_tables", "dssm_assets")}
    ui.open("/assets/training_window?view=checks")
    expect(ui.page.get_by_text("window_complete").first).to_be_visible()
