"""The schedule and the landed sensor of the daily chain: when they tick, which days they start, why they skip a day."""

import datetime as dt

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.automation import evaluated_day, read_cursor
from dssm_assets.defs.scene import Scene
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS

SCHEDULE = "daily_chain_schedule"


def build_schedule(tmp_path, **platform):
    loaded = worlds.write_config(tmp_path, {"platform": platform} if platform else None)
    return build_definitions(loaded).resolve_schedule_def(SCHEDULE)


def temporary_instance(tmp_path):
    """Returns an instance in a folder of its own, from which the schedule reads runs."""
    folder = tmp_path / "instance"
    folder.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder))


def tick_schedule(tmp_path, local_time, instance=None):
    """Returns the runs that the schedule starts at a local time, or the reason why none, in a location loaded at that time."""
    at = dt.datetime.fromisoformat(f"{local_time}+08:00")
    used = instance or temporary_instance(tmp_path)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("dssm_assets.defs.scene.today_in", lambda timezone: at.date())
        defs = build_definitions(worlds.write_config(tmp_path))
        repository = defs.get_repository_def()
        context = dg.build_schedule_context(instance=used, scheduled_execution_time=at, repository_def=repository)
        found = defs.resolve_schedule_def(SCHEDULE).evaluate_tick(context)
    return found.run_requests or found.skip_message


def test_schedule_ticks_in_the_calendars_timezone_and_is_switched_on_by_the_configuration(tmp_path):
    schedule = build_schedule(tmp_path)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", worlds.TIMEZONE)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    schedule = build_schedule(tmp_path, trigger="schedule", schedule_at="17:05")
    assert schedule.cron_schedule == "5 17 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_schedule_runs_the_chain_of_the_previous_day(tmp_path):
    (run,) = tick_schedule(tmp_path, "2024-01-08T03:00")
    assert (run.partition_key, run.run_key) == ("2024-01-07", "daily_chain:2024-01-07")
    assert run.tags["dssm/scene"] == "tiny"


@pytest.mark.parametrize(
    ("local_time", "reason"),
    [
        ("2024-01-01T03:00", "2023-12-31 is before the calendar's first day, 2024-01-01"),
        ("2024-01-14T03:00", "the calendar ended on 2024-01-12: it has no day 2024-01-13"),
    ],
)
def test_days_outside_the_calendar_are_skipped_with_a_reason(tmp_path, local_time, reason):
    assert tick_schedule(tmp_path, local_time) == reason


@pytest.mark.parametrize(("status", "is_skipped"), [("SUCCESS", True), ("STARTED", True), ("FAILURE", False)])
def test_schedule_skips_a_day_with_a_run_unless_the_run_failed(tmp_path, status, is_skipped):
    with temporary_instance(tmp_path) as instance:
        tags = {"dagster/partition": "2024-01-07"}
        run = dg.DagsterRun(job_name="daily_chain", tags=tags, status=dg.DagsterRunStatus(status))
        instance.add_run(run)
        found = tick_schedule(tmp_path, "2024-01-08T03:00", instance)
    assert (found == f"2024-01-07 already has a run: {run.run_id}") is is_skipped


SENSOR = "source_landed_sensor"


def world_with_day_folders(tmp_path, **more):
    """Returns a configuration whose log has one folder per day, none of them written yet."""
    behavior = {"uri": "{data}/source/log", "layout": "ds_folders"}
    changes = {"tables": {"behavior": behavior}, **more}
    loaded = worlds.write_config(tmp_path, changes)
    worlds.write_rows(tmp_path / "source" / "users.parquet", worlds.user_rows())
    worlds.write_rows(tmp_path / "source" / "items.parquet", worlds.item_rows())
    (tmp_path / "source" / "log").mkdir()
    return loaded


def land(tmp_path, *days):
    """Writes the log folders of some days, by their number in the calendar."""
    for day in days:
        worlds.write_rows(tmp_path / "source" / "log" / f"ds={DAYS[day]}" / "part-0.parquet", worlds.log_rows([day]))


def evaluate_sensor(loaded, cursor, instance):
    defs = build_definitions(loaded)
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
        return defs.resolve_sensor_def(SENSOR).evaluate_tick(context)


def tick_sensor(loaded, cursor=None, instance=None):
    """Returns (started days, skip reason, new cursor) of one tick of the sensor."""
    found = evaluate_sensor(loaded, cursor, instance or dg.DagsterInstance.ephemeral())
    return [run.partition_key for run in found.run_requests or []], found.skip_message, found.cursor


def test_sensor_starts_landed_days_in_order_and_each_once(tmp_path):
    loaded = world_with_day_folders(tmp_path)
    started, reason, cursor = tick_sensor(loaded, cursor="2024-01-03")
    assert started == []
    assert reason.startswith("waiting for 2024-01-04: behavior_table has no folder ds=2024-01-04 in ")
    land(tmp_path, 3, 4)
    started, _, cursor = tick_sensor(loaded, cursor)
    assert started == ["2024-01-04", "2024-01-05"]
    started, reason, cursor = tick_sensor(loaded, cursor)
    assert started == []
    assert reason.startswith("waiting for 2024-01-06: ")
    land(tmp_path, 6)
    assert tick_sensor(loaded, cursor)[0] == [], "2024-01-07 has landed, 2024-01-06 has not"


def test_sensor_starts_at_most_three_landed_days_per_tick(tmp_path):
    loaded = world_with_day_folders(tmp_path)
    land(tmp_path, *range(12))
    first, _, cursor = tick_sensor(loaded, cursor="2024-01-02")
    second, _, _ = tick_sensor(loaded, cursor)
    assert (first, second) == (["2024-01-03", "2024-01-04", "2024-01-05"], ["2024-01-06", "2024-01-07", "2024-01-08"])


def test_sensor_passes_over_a_day_with_a_run(tmp_path):
    loaded = world_with_day_folders(tmp_path)
    land(tmp_path, 3)
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.DagsterRun(
            job_name="daily_chain", tags={"dagster/partition": "2024-01-04"}, status=dg.DagsterRunStatus.STARTED
        )
        instance.add_run(run)
        started, reason, cursor = tick_sensor(loaded, "2024-01-03", instance)
    assert started == []
    assert reason.startswith(f"2024-01-04 already has a run: {run.run_id}; waiting for 2024-01-05: ")
    assert read_cursor(cursor)[0] == "2024-01-04"


def test_sensor_without_cursor_continues_after_the_last_stored_day_or_starts_with_the_latest(tmp_path):
    loaded = world_with_day_folders(tmp_path)
    land(tmp_path, 0, 1, 2, 11)
    assert tick_sensor(loaded)[0] == ["2024-01-12"]
    worlds.materialize(loaded, ["behavior_table"], DAYS[:2])
    assert tick_sensor(loaded)[0] == ["2024-01-03"]


def test_missing_source_is_the_skip_reason_and_leaves_the_cursor(tmp_path):
    loaded = world_with_day_folders(tmp_path)
    (tmp_path / "source" / "users.parquet").unlink()
    started, reason, cursor = tick_sensor(loaded, cursor="2024-01-03")
    assert started == []
    assert reason.startswith("the sources cannot be read: table user_table, ")
    assert read_cursor(cursor)[0] == "2024-01-03"


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        (None, (None, {})),
        (" 2024-01-03 ", ("2024-01-03", {})),
        ('{"last": "2024-01-03", "seen": {"behavior": {"newest_ms": 1}}}', ("2024-01-03", {"behavior": {"newest_ms": 1}})),
    ],
)
def test_read_cursor_accepts_a_plain_day(cursor, expected):
    assert read_cursor(cursor) == expected


@pytest.mark.parametrize(
    ("span", "ended", "evaluated"),
    # Six days of window from 2024-01-01: the first evaluation day is 2024-01-07. The truth of the 9th in a span of two is that of the
    # 9th and the 10th.
    [(1, "2024-01-06", None), (1, "2024-01-07", "2024-01-07"), (2, "2024-01-07", None), (2, "2024-01-10", "2024-01-09")],
)
def test_the_evaluated_day_is_the_last_whose_truth_has_ended(tmp_path, span, ended, evaluated):
    scene = Scene(worlds.write_config(tmp_path, {"evaluation": {"span_days": span}}))
    assert evaluated_day(scene, ended) == evaluated
