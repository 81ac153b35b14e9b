"""The checks that tell what is late: which day is due, what runs report, and when the schedule ticks."""

import datetime as dt

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.freshness import checks
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, END

OPEN = {"calendar": {"end": None}}
WATCHED = {"behavior_table", "positive_sample", "total_hit_rate"}


def run_checks(monkeypatch, loaded, time):
    """Returns asset -> whether its check passes at a local time, and its description, of the job that the schedule starts."""
    monkeypatch.setattr(checks, "now_in", lambda timezone: dt.datetime.fromisoformat(time))
    defs = build_definitions(loaded)
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def(defs.resolve_schedule_def("freshness_schedule").job_name)
        found = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return {one.asset_key.to_user_string(): (one.passed, one.description) for one in found}


@pytest.mark.parametrize(
    ("changes", "cron"),
    [
        ({}, None),
        (OPEN, "0 12 * * *"),
        (OPEN | {"platform": {"freshness_hours": 6.5}}, "30 6 * * *"),
        (
            OPEN | {"platform": {"freshness_hours": 7.77}},
            "47 7 * * *",
        ),  # 12 seconds past 7:46: a tick before would see no deadline
        ({"platform": {"freshness_hours": 24}}, "0 0 * * *"),
    ],
)
def test_checks_and_their_schedule_are_there_if_a_day_can_be_late(tmp_path, changes, cron):
    defs = build_definitions(worlds.write_config(tmp_path, changes))
    keys = defs.resolve_asset_graph().asset_check_keys
    found = {key.asset_key.to_user_string() for key in keys if key.name == "freshness"}
    assert found == (set() if cron is None else WATCHED)
    schedules = [one for one in defs.schedules or [] if one.name == "freshness_schedule"]
    assert [(one.cron_schedule, one.execution_timezone) for one in schedules] == [(cron, worlds.TIMEZONE)] * (cron is not None)
    assert all(one.default_status is dg.DefaultScheduleStatus.RUNNING for one in schedules)


@pytest.mark.parametrize(
    ("latest_end", "changes", "daily", "evaluated"),
    [
        # The 11th ends at midnight. The first window of 6 days ends on the 6th.
        ("2024-01-12T00:00", {}, "2024-01-11", "2024-01-11"),
        ("2024-01-07T00:00", {}, "2024-01-06", None),
        ("2024-01-08T00:00", {}, "2024-01-07", "2024-01-07"),
        ("2024-01-01T23:59", {}, None, None),
        # A run of the 11th evaluates the 9th, whose truth is the 9th to the 11th.
        ("2024-01-12T00:00", {"evaluation": {"span_days": 3}}, "2024-01-11", "2024-01-09"),
        ("2024-03-01T12:00", {"calendar": {"end": END}}, END, END),
    ],
)
def test_the_newest_day_that_is_due(tmp_path, latest_end, changes, daily, evaluated):
    scene = Scene(worlds.write_config(tmp_path, OPEN | changes))
    time = dt.datetime.fromisoformat(latest_end)
    assert checks.find_due_day(scene, "behavior_table", time) == daily
    assert checks.find_due_day(scene, "total_hit_rate", time) == evaluated


def test_a_missing_day_is_late_from_its_deadline_on_whatever_is_made_of_older_days(tmp_path_factory, tmp_path, monkeypatch):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "copy", OPEN)  # stored up to the 12th
    assert run_checks(monkeypatch, loaded, "2024-01-03T11:59") == dict.fromkeys(WATCHED, (True, "no day is due yet"))
    # The 13th ends at midnight; 36 hours later it is the 15th, 12:00.
    assert run_checks(monkeypatch, loaded, "2024-01-15T11:59") == dict.fromkeys(WATCHED, (True, "2024-01-12 is stored"))
    found = run_checks(monkeypatch, loaded, "2024-01-15T12:00")
    assert {name: passed for name, (passed, _) in found.items()} == dict.fromkeys(WATCHED, False)
    assert found["total_hit_rate"][1].startswith(
        "2024-01-13 is not stored 36 hours after it could be made; the last stored day is 2024-01-12. "
        "To fix: materialize total_hit_rate of 2024-01-13 in Dagster"
    )
    job = build_definitions(loaded).resolve_job_def("daily_tables")
    with dg.DagsterInstance.ephemeral() as instance:
        old = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[2]}
        done = job.execute_in_process(instance=instance, tags=old, asset_selection=[dg.AssetKey("behavior_table")])
    (check,) = [one for one in done.get_asset_check_evaluations() if one.check_name == "freshness"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "the last stored day is 2024-01-12" in check.description


def test_a_day_without_anything_to_evaluate_is_not_late(tmp_path_factory, tmp_path, monkeypatch):
    changes = OPEN | {"tables": {"behavior": {"allow_empty_days": True}}}
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "copy", changes)
    worlds.run_steps(loaded, worlds.DAILY, ["2024-01-13"])  # no events
    found = run_checks(monkeypatch, loaded, "2024-01-15T12:00")
    assert all(passed for passed, _ in found.values())
    assert found["total_hit_rate"][1].startswith("2024-01-13 was skipped: there is no positive event on the day 2024-01-13")
    assert not any(passed for passed, _ in run_checks(monkeypatch, loaded, "2024-01-16T12:00").values())
