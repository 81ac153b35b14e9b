"""Runs of commands: run monitoring leaves living ones alone; those of killed processes end, and free the queue and their pool."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from dssm_assets.defs.runs import run_days
from dssm_assets.deployment import run_owner
from dssm_assets.deployment.run_owner import OWNER_TAG, RunOwner, end_dead_runs, tag_run
from dssm_assets.storage.instance_file import write_instance_file
from dssm_assets_tests.deploy.compose_file import DEPLOY

DAY = "2024-01-01"


@dg.asset(partitions_def=dg.DailyPartitionsDefinition(DAY), pool="trainer")
def slow(context: dg.AssetExecutionContext) -> None:
    """Works for as long as a file exists."""
    (Path(context.instance.root_directory) / "started").touch()
    while (Path(context.instance.root_directory) / "hold").exists():
        time.sleep(0.02)


def run_slow(home: str) -> None:
    """Runs the asset in this process, as `dssm-assets materialize` does."""
    with dg.DagsterInstance.from_config(home) as instance:
        run_days(dg.Definitions(assets=[slow], executor=dg.in_process_executor), instance, ["slow"], [DAY])


COMMAND = textwrap.dedent(
    """
    import sys
    from dssm_assets_tests.deploy.test_run_owner import run_slow
    run_slow(sys.argv[1])
    """
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    (tmp_path / "hold").touch()
    return tmp_path


def _start_command(home: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(home)])
    end = time.monotonic() + 60
    while not (home / "started").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    return process


def _monitor(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """Lets Dagster's run monitoring look at a run; returns the run's status afterwards."""
    import logging

    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
    monitor_started_run(instance, None, record, logging.getLogger("test"))  # type: ignore[arg-type]
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def _slots(instance: dg.DagsterInstance) -> int:
    return instance.event_log_storage.get_concurrency_info("trainer").active_slot_count


def test_command_is_left_alone_while_it_works_and_its_run_ends_once_it_is_killed(
    home: Path, instance: dg.DagsterInstance
) -> None:
    process = _start_command(home)
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.STARTED
    assert _monitor(instance, run.run_id) is dg.DagsterRunStatus.STARTED, "healthy"
    assert end_dead_runs(instance) == []
    assert _slots(instance) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert end_dead_runs(instance) == [run.run_id]
    assert [found.status for found in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]
    assert _slots(instance) == 0, "the next run of the pool need not wait"
    assert end_dead_runs(instance) == []


def _run_of(instance: dg.DagsterInstance, owner: RunOwner) -> dg.DagsterRun:
    run = instance.create_run_for_job(dg.job(name="empty")(lambda: None))
    instance.add_run_tags(run.run_id, owner.to_tags(run.run_id))
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def test_run_monitoring_ends_the_run_of_a_killed_command(instance: dg.DagsterInstance) -> None:
    here = RunOwner.from_this_process()
    run = _run_of(instance, RunOwner(here.host, here.pid, "1", here.machine))
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "empty"), run.run_id)
    assert _monitor(instance, run.run_id) is dg.DagsterRunStatus.FAILURE


def _elsewhere(started: str = "17") -> RunOwner:
    return RunOwner("other-host", 4711, started, "another")


def test_process_with_a_reused_id_is_another_one(instance: dg.DagsterInstance) -> None:
    here = RunOwner.from_this_process()
    assert here.reason_of_death(instance) is None
    later = RunOwner(here.host, here.pid, "1", here.machine)
    assert "has ended" in (later.reason_of_death(instance) or "")


def test_command_on_another_machine_counts_as_dead_once_it_stops_reporting(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = _elsewhere()
    run = _run_of(instance, owner)
    assert end_dead_runs(instance) == [], "nothing is known of it"
    monkeypatch.setattr(RunOwner, "from_this_process", lambda: owner)
    first = time.time()
    tag_run(instance, run, seconds=0.02)
    assert owner.reason_of_death(instance) is None
    time.sleep(1.5)
    monkeypatch.setattr(RunOwner, "report", lambda self, instance: None)
    monkeypatch.setattr(run_owner.time, "time", lambda: first + run_owner.SILENT_SECONDS + 0.5)
    assert owner.reason_of_death(instance) is None, "it has reported again since the first time"
    monkeypatch.setattr(run_owner.time, "time", lambda: first + run_owner.SILENT_SECONDS + 10)
    assert owner.reason_of_death(instance) == "process 4711 on other-host, which ran it, has not reported for 5 minutes"
    assert end_dead_runs(instance) == [run.run_id]


def test_retry_has_no_owner_until_its_process_works(instance: dg.DagsterInstance) -> None:
    dead = _run_of(instance, _elsewhere())
    retry = instance.create_run_for_job(dg.job(name="empty")(lambda: None), tags={OWNER_TAG: dead.tags[OWNER_TAG]})
    assert RunOwner.from_run(retry) is None
    tag_run(instance, retry)
    found = instance.get_run_by_id(retry.run_id)
    assert found is not None and RunOwner.from_run(found) == RunOwner.from_this_process()


def test_home_folder_is_an_instance_that_watches_its_runs(tmp_path: Path) -> None:
    write_instance_file(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        assert opened.run_monitoring_enabled
        assert opened.run_launcher.supports_check_run_worker_health
