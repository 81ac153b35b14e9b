"""The schedule of the daily chain: its time, its days, and what it says when it starts nothing."""

import datetime as dt
import http.server
import json
import threading

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.automation import WEBHOOK_VARIABLE, post, read_cursor
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS

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
        clock.setattr("dssm_assets.defs.scene.today_in", lambda timezone: at.date())
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


NAME_LANDED = "source_landed_sensor"


def folders(tmp_path, **more):
    """Returns a configuration whose log lies in day folders."""
    behavior = {"uri": "{data}/source/log", "layout": "ds_folders"}
    changes = {"tables": {"behavior": behavior}, **more}
    loaded = worlds.write_config(tmp_path, changes)
    worlds.write_rows(tmp_path / "source" / "users.parquet", worlds.user_rows())
    worlds.write_rows(tmp_path / "source" / "items.parquet", worlds.item_rows())
    (tmp_path / "source" / "log").mkdir()
    return loaded


def land(tmp_path, *days):
    for day in days:
        worlds.write_rows(tmp_path / "source" / "log" / f"ds={DAYS[day]}" / "part-0.parquet", worlds.log_rows([day]))


def evaluated(loaded, cursor, instance):
    """Returns everything that a tick gave."""
    defs = build_definitions(loaded)
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
        return defs.resolve_sensor_def(NAME_LANDED).evaluate_tick(context)


def tick_landed(loaded, cursor=None, instance=None):
    """Returns (days asked for, what was said, the new cursor)."""
    found = evaluated(loaded, cursor, instance or dg.DagsterInstance.ephemeral())
    return [run.partition_key for run in found.run_requests or []], found.skip_message, found.cursor


def test_it_is_off_until_configured(tmp_path):
    def status(**changes):
        return build_definitions(worlds.write_config(tmp_path, changes)).resolve_sensor_def(NAME_LANDED).default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    assert status(platform={"trigger": "sensor"}) is dg.DefaultSensorStatus.RUNNING


def test_days_are_asked_for_in_order_as_they_land_each_once(tmp_path):
    loaded = folders(tmp_path)
    asked, said, cursor = tick_landed(loaded, cursor="2024-01-03")
    assert asked == []
    assert said.startswith("2024-01-04 is waited for: behavior_table has no folder ds=2024-01-04 in ")
    land(tmp_path, 3, 4)
    asked, _, cursor = tick_landed(loaded, cursor)
    assert asked == ["2024-01-04", "2024-01-05"]
    asked, said, cursor = tick_landed(loaded, cursor)
    assert asked == []
    assert said.startswith("2024-01-06 is waited for: ")
    land(tmp_path, 6)
    assert tick_landed(loaded, cursor)[0] == [], "2024-01-07 has landed, the day before it has not"


def test_a_month_that_lies_there_is_caught_up_with_step_by_step(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, *range(12))
    first, _, cursor = tick_landed(loaded, cursor="2024-01-02")
    second, _, _ = tick_landed(loaded, cursor)
    assert (first, second) == (["2024-01-03", "2024-01-04", "2024-01-05"], ["2024-01-06", "2024-01-07", "2024-01-08"])


def test_the_runs_are_those_of_the_schedule(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, 6)
    (run,) = evaluated(loaded, "2024-01-06", dg.DagsterInstance.ephemeral()).run_requests
    assert run.run_key == "daily_chain:2024-01-07"
    assert {key.to_user_string() for key in run.asset_selection} == {*worlds.DAILY, *worlds.WINDOWED, *worlds.PUBLISHED}


def test_a_day_that_has_a_run_is_passed_over(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, 3)
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.DagsterRun(
            job_name="daily_chain", tags={"dagster/partition": "2024-01-04"}, status=dg.DagsterRunStatus.STARTED
        )
        instance.add_run(run)
        asked, said, cursor = tick_landed(loaded, "2024-01-03", instance)
    assert asked == []
    assert said.startswith(f"2024-01-04 has a run already: {run.run_id}; 2024-01-05 is waited for: ")
    assert read_cursor(cursor)[0] == "2024-01-04"


def test_without_a_cursor_it_goes_on_after_the_last_stored_day_else_with_the_last_of_all(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, 0, 1, 2, 11)
    assert tick_landed(loaded)[0] == ["2024-01-12"]
    worlds.materialize(loaded, ["behavior_table"], DAYS[:2])
    assert tick_landed(loaded)[0] == ["2024-01-03"]


def test_a_log_with_a_time_column_leaves_what_was_seen_in_the_cursor(tmp_path):
    loaded = worlds.write_world(tmp_path)
    asked, _, cursor = tick_landed(loaded, cursor="2024-01-11")
    assert asked == ["2024-01-12"]
    assert json.loads(cursor)["seen"]["behavior"]["newest_ms"] == max(row["ts"] for row in worlds.log_rows([11]))
    asked, said, _ = tick_landed(loaded, cursor)
    assert asked == []
    assert said == "no day to wait for: 2024-01-12 is the last of the calendar up to now"


def test_a_missing_source_is_said_in_words_and_moves_nothing(tmp_path):
    loaded = folders(tmp_path)
    (tmp_path / "source" / "users.parquet").unlink()
    asked, said, cursor = tick_landed(loaded, cursor="2024-01-03")
    assert asked == []
    assert said.startswith("the sources cannot be read: table user_table, ")
    assert read_cursor(cursor)[0] == "2024-01-03"


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        (None, (None, {})),
        (" 2024-01-03 ", ("2024-01-03", {})),
        ('{"last": "2024-01-03", "seen": {"behavior": {"newest_ms": 1}}}', ("2024-01-03", {"behavior": {"newest_ms": 1}})),
    ],
)
def test_a_cursor_may_be_set_by_hand(cursor, expected):
    assert read_cursor(cursor) == expected


NAME_FAILURES = "failure_sensor"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it, and answers as it was told to."""

    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        """Prints nothing."""


@pytest.fixture
def receiver():
    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.answer = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}/hook?token=secret"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def failed_run(loaded, instance):
    """Runs a day whose sources are missing; returns the context that its failure is told in."""
    defs = build_definitions(loaded)
    job = defs.resolve_job_def("daily_tables")
    result = job.execute_in_process(instance=instance, partition_key="2024-01-04", raise_on_error=False)
    assert not result.success
    event = result.get_run_failure_event()
    context = dg.build_run_status_sensor_context(NAME_FAILURES, event, instance, result.dagster_run, partition_key="2024-01-04")
    return defs.resolve_sensor_def(NAME_FAILURES), context.for_run_failure(), result.dagster_run


def test_a_failed_run_is_posted_with_its_day_step_and_error(tmp_path, receiver, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": receiver.address}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, run = failed_run(loaded, instance)
        assert sensor(context) is None
    (told,) = receiver.received
    assert (told["scene"], told["job"], told["run_id"], told["partition"]) == ("tiny", "daily_tables", run.run_id, "2024-01-04")
    assert told["step"] in {"user_table", "item_table", "behavior_table"}
    assert "expected a file or folder, got no such file or folder" in told["error"]
    assert told["text"].startswith(f"tiny: daily_tables of 2024-01-04 failed in {told['step']}: ")


def test_the_environment_wins_over_the_configuration(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": "http://127.0.0.1:9/nobody"}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(loaded, instance)
        sensor(context)
    assert len(receiver.received) == 1


def test_a_webhook_that_fails_fails_nothing(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    receiver.answer = 500
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(worlds.write_config(tmp_path), instance)
        assert sensor(context) is None


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/hook?token=secret", "file:///etc/hostname?secret", "nonsense secret"])
def test_what_goes_wrong_is_said_without_the_address(address):
    problem = post(address, {"text": "x"})
    assert problem
    assert "secret" not in problem


def test_runs_of_others_are_left_to_others(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)

    @dg.op
    def broken():
        raise ValueError("theirs")

    @dg.job
    def their_job():
        broken()

    sensor = build_definitions(worlds.write_config(tmp_path)).resolve_sensor_def(NAME_FAILURES)
    with dg.DagsterInstance.ephemeral() as instance:
        result = their_job.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            NAME_FAILURES, result.get_run_failure_event(), instance, result.dagster_run
        )
        found = sensor(context.for_run_failure())
    assert "is not one of tiny" in found.skip_message
    assert receiver.received == []


def test_it_is_on_where_it_has_someone_to_tell_or_runs_start_by_themselves(tmp_path, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)

    def status(**platform):
        loaded = worlds.write_config(tmp_path, {"platform": platform} if platform else None)
        return build_definitions(loaded).resolve_sensor_def(NAME_FAILURES).default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    assert status(trigger="schedule") is dg.DefaultSensorStatus.RUNNING
    assert status(webhook_url="https://chat.example/hook") is dg.DefaultSensorStatus.RUNNING
