"""Every step that runs on an engine, one after the other over some days: in this process, or as one Spark program.

spark-submit dssm_assets_tests/extras/spark/steps.py PROGRAM
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.extras.spark.spark_runs import submit_command
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests.extras.spark.cluster import REPOSITORY

Plan = Mapping[str, Sequence[str]]
"""The days of each step."""
SOURCES = ("user_table", "item_table", "behavior_table")
SAMPLED = ("sample_fg", "positive_sample", "numeric_value_counts", "category_value_counts")
STEPS = {row.name: row.step for row in all_rows() if row.runs_on_engine}


def days_of_steps(days: Sequence[str], *, left_out: Sequence[str] = ()) -> Plan:
    """Returns the days of every engine step, the first being the calendar's.

    `behavior` has all of them, the others have not those left out; samples have features where the day before has.
    """
    kept = [ds for ds in days if ds not in left_out]
    sampled = [ds for ds in kept if ds == days[0] or day_before(ds) in kept]
    return {name: list(days) if name == "behavior" else sampled if name in SAMPLED else kept for name in STEPS}


def run_steps(workspace: Workspace, plan: Plan) -> dict[str, float]:
    """Runs steps over their days, in the order of the graph; returns the seconds of each."""
    seconds = {}
    for row in all_rows():
        if row.name in plan:
            begin = time.perf_counter()
            failed = [check for result in row.step(workspace, plan[row.name]) for check in result.checks if not check.is_passed]
            assert not failed, failed
            seconds[row.name] = time.perf_counter() - begin
            workspace.log(f"{row.name} {seconds[row.name]:.1f} s")
    return seconds


def land_sources(loaded: LoadedConfig, days: Sequence[str]) -> Workspace:
    """Lands the source tables of some days; returns the workspace."""
    workspace = open_workspace(loaded)
    run_steps(workspace, dict.fromkeys(SOURCES, days))
    return workspace


def run_on_spark(*works: tuple[LoadedConfig, Plan]) -> str:
    """Runs steps of each configuration, one after the other in one program on the first one's cluster; returns what was printed."""
    spark = works[0][0].config.spark
    program = json.dumps([(str(loaded.path), str(loaded.home), plan) for loaded, plan in works])
    environment = {**os.environ, "PYSPARK_DRIVER_PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY)}
    command = [*submit_command(spark, "all steps")[:-1], str(Path(__file__)), program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def main(program: str) -> None:
    """Runs steps over their days on the cluster of the Spark session that spark-submit describes."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.getOrCreate()
    for config, home, plan in json.loads(program):
        loaded = load_config(Path(config), Path(home))
        workspace = open_workspace(loaded, print, partial(SparkEngine, session=session))
        run_steps(workspace, plan)
    executors = session.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    print(f"executors {len(executors) - 1}")  # the driver is one of them
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
