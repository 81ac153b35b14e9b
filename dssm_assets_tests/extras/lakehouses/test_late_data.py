"""Late rows: the sensor makes the days again from the first that has some, once, and the next day's chain goes on from there."""

import json

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.automation import RANGE_TAGS
from dssm_assets.defs.runs import QUIET_CONSOLE
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.defs.test_automation import evaluate_sensor
from dssm_assets_tests.extras.lakehouses.lakes import log_of
from dssm_assets_tests.worlds import DAYS

LATE, LAST, NEXT = DAYS[4], DAYS[6], DAYS[7]


def rows_of(days, ingested):
    """Returns the log of some days as it came on one."""
    rows = log_of(days)
    return rows.append_column("ingested", pa.array([ingested] * len(rows)))


@pytest.fixture
def loaded(lake, tmp_path):
    worlds.write_sources(tmp_path)
    for day in range(7):
        lake.append(rows_of([day], DAYS[day]), "ingested")
    loaded = worlds.write_config(tmp_path, {"tables": {"behavior": lake.source}})
    worlds.run_steps(loaded, ["behavior_table"], DAYS[:7])
    return loaded


def tick(loaded, cursor, instance):
    found = evaluate_sensor(loaded, cursor, instance)
    return found.run_requests or [], found.skip_message, found.cursor


def run_request(loaded, request, instance):
    job = build_definitions(loaded).resolve_job_def(request.job_name)
    chosen = {"partition_key": request.partition_key, "asset_selection": request.asset_selection}
    return job.execute_in_process(instance=instance, tags=request.tags, run_config=QUIET_CONSOLE, **chosen)


@pytest.mark.slow
def test_days_with_late_rows_are_made_again_before_the_next_day(lake, loaded, tmp_path):
    instance = dg.DagsterInstance.local_temp(str(tmp_path / "home"))
    _, reason, cursor = tick(loaded, LAST, instance)
    assert reason.startswith(f"waiting for {NEXT}: ")
    worlds.run_steps(loaded, worlds.DAILY, DAYS[:7])
    before = open_workspace(loaded).need("behavior_table", LATE)
    late = rows_of([4], DAYS[7]).slice(0, 2)
    lake.append(pa.concat_tables([late, rows_of([7], DAYS[7])]), "ingested")

    (request,), _, cursor = tick(loaded, cursor, instance)
    assert (request.job_name, request.run_key) == ("daily_tables", None), "a version that comes back asks for a run again"
    assert [request.tags[tag] for tag in RANGE_TAGS] == [LATE, LAST]
    assert request.partition_key is None
    tables = build_definitions(loaded).resolve_job_def("daily_tables")
    running = instance.create_run_for_job(tables, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    assert tick(loaded, cursor, instance)[:2] == ([], f"run {running.run_id} makes days with late rows again")
    instance.report_run_failed(running)
    assert run_request(loaded, request, instance).success

    workspace = open_workspace(loaded)
    after = workspace.need("behavior_table", LATE)
    assert (after.rows, before.rows) == (before.rows + 2, before.rows)
    assert after.facts["source_version"] != before.facts["source_version"]
    requests, _, cursor = tick(loaded, cursor, instance)
    assert [one.partition_key for one in requests] == [NEXT]
    assert run_request(loaded, requests[0], instance).success
    assert open_workspace(loaded).need("total_hit_rate", NEXT).rows
    requests, reason, _ = tick(loaded, cursor, instance)
    assert requests == []
    assert reason.startswith(f"waiting for {DAYS[8]}: ")


def test_late_days_wait_for_the_chain_that_runs_and_chains_wait_for_them(lake, loaded, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = tick(loaded, LAST, instance)[2]
        chain = build_definitions(loaded).resolve_job_def("daily_chain")
        running = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED)
        lake.table.delete(f"ingested = '{LATE}' AND user_id = 'a1'")
        lake.append(rows_of([7], DAYS[7]), "ingested")
        requests, reason, cursor = tick(loaded, cursor, instance)
        assert requests == []
        assert reason == f"rows of {LATE} have come late: its tables are made again after run {running.run_id}"
        instance.report_run_failed(running)
        requests, _, cursor = tick(loaded, cursor, instance)
        assert [request.tags[RANGE_TAGS[0]] for request in requests] == [LATE]
        assert "late_from" not in json.loads(cursor)["seen"]


def test_days_before_the_calendar_are_not_made_again(lake, loaded, tmp_path):
    changed = {"tables": {"behavior": lake.source}, "calendar": {"start": DAYS[5]}}
    loaded = worlds.write_config(tmp_path, changed)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = tick(loaded, LAST, instance)[2]
        lake.append(rows_of([4], DAYS[7]), "ingested")
        (request,), _, _ = tick(loaded, cursor, instance)
    assert [request.tags[tag] for tag in RANGE_TAGS] == [DAYS[5], LAST]


def test_rows_that_come_while_their_day_is_made_are_not_lost(lake, loaded):
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = tick(loaded, NEXT, instance)[2]
        chain = build_definitions(loaded).resolve_job_def("daily_chain")
        running = instance.create_run_for_job(chain, status=dg.DagsterRunStatus.STARTED)
        lake.append(rows_of([7], DAYS[7]), "ingested")
        requests, reason, cursor = tick(loaded, cursor, instance)
        assert (requests, reason.split(":")[0]) == ([], f"rows of {NEXT} have come late")
        worlds.run_steps(loaded, ["behavior_table"], [NEXT])
        instance.report_run_failed(running)
        assert [request.tags[RANGE_TAGS[0]] for request in tick(loaded, cursor, instance)[0]] == [NEXT]


def test_rows_that_keep_coming_late_do_not_hold_back_the_next_day(lake, loaded):
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = tick(loaded, LAST, instance)[2]
        tables, jobs = build_definitions(loaded).resolve_job_def("daily_tables"), []
        lake.append(rows_of([7], DAYS[7]), "ingested")
        for _ in range(3):
            lake.append(rows_of([4], DAYS[7]).slice(0, 1), "ingested")
            (request,), _, cursor = tick(loaded, cursor, instance)
            jobs.append(request.job_name)
            instance.create_run_for_job(tables, tags=request.tags, status=dg.DagsterRunStatus.SUCCESS)
        assert jobs == ["daily_tables", "daily_chain", "daily_tables"]
