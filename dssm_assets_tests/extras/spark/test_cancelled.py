"""Cancelling a run ends its job on the cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.extras.spark.cluster import Cluster, requires_pyspark
from dssm_assets_tests.extras.spark.steps import land_sources

pytestmark = [requires_pyspark, pytest.mark.slow]

START_SECONDS = 120.0
END_SECONDS = 15.0


def test_cancelling_a_run_ends_its_job_and_publishes_nothing_more(cluster: Cluster, tmp_path: Path) -> None:
    loaded = worlds.write_world(tmp_path, cluster.settings(executors=1))
    workspace = land_sources(loaded, worlds.DAYS)
    instance, before, during = dg.DagsterInstance.ephemeral(), descendants(), set[int]()

    def cancel() -> None:
        if holds(lambda: workspace.find("behavior", worlds.DAYS[0]) is not None, START_SECONDS):
            during.update(descendants() - before)
            instance.report_run_canceling(*instance.get_runs())  # as when a user terminates a run
            os.kill(os.getpid(), signal.SIGINT)

    canceller = threading.Thread(target=cancel, daemon=True)
    canceller.start()
    with pytest.raises(KeyboardInterrupt):
        worlds.materialize(loaded, ["behavior"], worlds.DAYS, instance)
    visible = workspace.tables.partitions.days("behavior")
    assert worlds.DAYS[0] in visible
    assert worlds.DAYS[-1] not in visible

    assert len(during) >= 4, "spark-submit, the driver, the executor and its Python"
    assert holds(lambda: not during & descendants(all_of_machine=True), END_SECONDS), during & descendants(all_of_machine=True)
    assert workspace.tables.partitions.days("behavior") == visible
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.CANCELED


def holds(condition: Callable[[], bool], seconds: float) -> bool:
    """Returns whether a condition becomes true within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def descendants(*, all_of_machine: bool = False) -> set[int]:
    """Returns the processes that this one and its children started, or all; zombies excluded."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found = set(parents) if all_of_machine else {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found
