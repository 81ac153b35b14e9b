"""The sensor that starts a day's chain once its three source tables have landed: order, cursor, one run per day, words."""

import json

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.landed import read_cursor
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS

NAME = "source_landed_sensor"


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
        return defs.resolve_sensor_def(NAME).evaluate_tick(context)


def tick(loaded, cursor=None, instance=None):
    """Returns (days asked for, what was said, the new cursor)."""
    found = evaluated(loaded, cursor, instance or dg.DagsterInstance.ephemeral())
    return [run.partition_key for run in found.run_requests or []], found.skip_message, found.cursor


def test_it_is_off_until_configured(tmp_path):
    def status(**changes):
        return build_definitions(worlds.write_config(tmp_path, changes)).resolve_sensor_def(NAME).default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    assert status(platform={"trigger": "sensor"}) is dg.DefaultSensorStatus.RUNNING


def test_days_are_asked_for_in_order_as_they_land_each_once(tmp_path):
    loaded = folders(tmp_path)
    asked, said, cursor = tick(loaded, cursor="2024-01-03")
    assert asked == []
    assert said.startswith("2024-01-04 is waited for: behavior_table has no folder ds=2024-01-04 in ")
    land(tmp_path, 3, 4)
    asked, _, cursor = tick(loaded, cursor)
    assert asked == ["2024-01-04", "2024-01-05"]
    asked, said, cursor = tick(loaded, cursor)
    assert asked == []
    assert said.startswith("2024-01-06 is waited for: ")
    land(tmp_path, 6)
    assert tick(loaded, cursor)[0] == [], "2024-01-07 has landed, the day before it has not"


def test_a_month_that_lies_there_is_caught_up_with_step_by_step(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, *range(12))
    first, _, cursor = tick(loaded, cursor="2024-01-02")
    second, _, _ = tick(loaded, cursor)
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
        asked, said, cursor = tick(loaded, "2024-01-03", instance)
    assert asked == []
    assert said.startswith(f"2024-01-04 has a run already: {run.run_id}; 2024-01-05 is waited for: ")
    assert read_cursor(cursor)[0] == "2024-01-04"


def test_without_a_cursor_it_goes_on_after_the_last_stored_day_else_with_the_last_of_all(tmp_path):
    loaded = folders(tmp_path)
    land(tmp_path, 0, 1, 2, 11)
    assert tick(loaded)[0] == ["2024-01-12"]
    worlds.materialize(loaded, ["behavior_table"], DAYS[:2])
    assert tick(loaded)[0] == ["2024-01-03"]


def test_a_log_with_a_time_column_leaves_what_was_seen_in_the_cursor(tmp_path):
    loaded = worlds.write_world(tmp_path)
    asked, _, cursor = tick(loaded, cursor="2024-01-11")
    assert asked == ["2024-01-12"]
    assert json.loads(cursor)["seen"]["behavior"]["newest_ms"] == max(row["ts"] for row in worlds.log_rows([11]))
    asked, said, _ = tick(loaded, cursor)
    assert asked == []
    assert said == "no day to wait for: 2024-01-12 is the last of the calendar up to now"


def test_a_missing_source_is_said_in_words_and_moves_nothing(tmp_path):
    loaded = folders(tmp_path)
    (tmp_path / "source" / "users.parquet").unlink()
    asked, said, cursor = tick(loaded, cursor="2024-01-03")
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
