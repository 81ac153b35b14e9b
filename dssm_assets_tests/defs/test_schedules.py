"""The schedule of the daily chain: its time, its days, and what it says when it starts nothing."""

import datetime as dt

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets_tests import worlds

NAME = "daily_chain_schedule"


def schedule_of(tmp_path, **platform):
    loaded = worlds.write_config(tmp_path, {"platform": platform} if platform else None)
    return build_definitions(loaded).resolve_schedule_def(NAME)


def temporary(tmp_path):
    """Returns an instance in a folder of its own: a schedule reads runs from it."""
    folder = tmp_path / "instance"
    folder.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder))


def tick(tmp_path, moment, instance=None):
    """Returns what the schedule asks for, or says, at a moment of Shanghai's clock, in a location that was loaded then."""
    at = dt.datetime.fromisoformat(f"{moment}+08:00")
    used = instance or temporary(tmp_path)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("dssm_assets.defs.partitions.today_in", lambda timezone: at.date())
        defs = build_definitions(worlds.write_config(tmp_path))
        repository = defs.get_repository_def()
        context = dg.build_schedule_context(instance=used, scheduled_execution_time=at, repository_def=repository)
        found = defs.resolve_schedule_def(NAME).evaluate_tick(context)
    return found.run_requests or found.skip_message


def test_it_ticks_in_the_calendars_zone_and_is_off_until_configured(tmp_path):
    schedule = schedule_of(tmp_path)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", worlds.TIMEZONE)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def test_the_configuration_switches_it_on_and_sets_its_time(tmp_path):
    schedule = schedule_of(tmp_path, trigger="schedule", schedule_at="17:05")
    assert schedule.cron_schedule == "5 17 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_it_asks_for_the_day_before_with_everything_once_the_window_fits(tmp_path):
    # Six days of window from 2024-01-01: the first evaluation day is 2024-01-07.
    (run,) = tick(tmp_path, "2024-01-08T03:00")
    assert run.partition_key == "2024-01-07"
    assert run.run_key == "daily_chain:2024-01-07"
    assert {key.to_user_string() for key in run.asset_selection} == {*worlds.DAILY, *worlds.WINDOWED, *worlds.PUBLISHED}
    assert run.tags["dssm/scene"] == "tiny"


def test_a_day_without_a_whole_window_gets_its_tables_alone(tmp_path):
    (run,) = tick(tmp_path, "2024-01-07T03:00")
    assert run.partition_key == "2024-01-06"
    assert {key.to_user_string() for key in run.asset_selection} == set(worlds.DAILY)


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2024-01-01T03:00", "2023-12-31 lies before the calendar's first day, 2024-01-01"),
        ("2024-01-14T03:00", "the calendar ended on 2024-01-12: there is no day 2024-01-13"),
    ],
)
def test_days_outside_the_calendar_are_skipped_in_words(tmp_path, moment, said):
    assert tick(tmp_path, moment) == said


@pytest.mark.parametrize(("status", "is_skipped"), [("SUCCESS", True), ("STARTED", True), ("FAILURE", False)])
def test_a_day_that_has_a_run_gets_no_second_one_unless_it_failed(tmp_path, status, is_skipped):
    with temporary(tmp_path) as instance:
        tags = {"dagster/partition": "2024-01-07"}
        run = dg.DagsterRun(job_name="daily_chain", tags=tags, status=dg.DagsterRunStatus(status))
        instance.add_run(run)
        found = tick(tmp_path, "2024-01-08T03:00", instance)
    assert (found == f"2024-01-07 has a run already: {run.run_id}") is is_skipped


def test_total_hit_rate_alone_is_watched_and_only_where_it_can_be_late(tmp_path):
    def policies(**changes):
        defs = build_definitions(worlds.write_config(tmp_path / str(len(changes)), changes))
        found = {spec.key.to_user_string(): spec.freshness_policy for spec in defs.resolve_all_asset_specs()}
        return {name: policy for name, policy in found.items() if policy is not None}

    assert policies() == {}
    ((name, policy),) = policies(calendar={"end": None}).items()
    assert name == "total_hit_rate"
    assert policy == dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36))
    ((_, policy),) = policies(platform={"freshness_hours": 6}, seed=8).items()
    assert policy == dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=6))
