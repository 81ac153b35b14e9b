"""Submitting Spark jobs, and scenes with `engine: spark`; no cluster is needed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dssm_assets.core.config.engines import Spark
from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError, Fault, SchemaError, SubmittedJobError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_row import LazyStep
from dssm_assets.defs.runs import run_days
from dssm_assets.extras.spark import spark_runs
from dssm_assets.extras.spark.spark_job import SparkJob, error_message, result_from_message, result_to_message
from dssm_assets.extras.spark.spark_runs import SCRIPT, _environment, submit_command
from dssm_assets.steps.workspace import Check, StepResult, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.spark.test_cancelled import descendants, holds
from dssm_assets_tests.worlds import built_world

DAY = worlds.DAYS[3]

world = pytest.fixture(scope="module")(built_world)


def test_submit_command_has_every_setting_of_the_spark_section() -> None:
    spark = Spark(
        master="spark://host:7077",
        submit=[sys.executable, "--py-files", "a.zip"],
        conf={"spark.executor.memory": "4g", "spark.log.level": "INFO", "spark.pyspark.python": "env/bin/python"},
    )
    command = submit_command(spark, "shop sample")
    assert command[:3] == [sys.executable, "--py-files", "a.zip"]
    assert command[3:7] == ["--master", "spark://host:7077", "--name", "shop sample"]
    assert set(command[8:-1:2]) == {
        "spark.executor.memory=4g",
        "spark.log.level=INFO",
        "spark.ui.showConsoleProgress=false",
        "spark.pyspark.python=env/bin/python",
        f"spark.pyspark.driver.python={sys.executable}",
    }
    assert command[-1] == str(SCRIPT)
    assert SCRIPT.is_file()
    assert _environment(spark) == {"PYSPARK_DRIVER_PYTHON": sys.executable}


@pytest.mark.parametrize("master", ["local", "local[4]", "local[*]"])
def test_workers_of_a_local_master_use_this_python(master: str) -> None:
    assert _environment(Spark(master=master))["PYSPARK_PYTHON"] == sys.executable
    assert "PYSPARK_PYTHON" not in _environment(Spark(master="spark://host:7077"))


def test_submit_command_without_settings_leaves_the_clients_defaults() -> None:
    spark = Spark(submit=[sys.executable])
    assert "--master" not in submit_command(spark, "x")
    assert "PYSPARK_PYTHON" not in _environment(spark)


def test_missing_submit_program_is_named() -> None:
    with pytest.raises(ConfigError, match=r"key spark.submit: expected a program that submits jobs, got no 'nowhere-submit'"):
        submit_command(Spark(submit=["nowhere-submit"]), "x")


def test_unknown_keys_and_engines_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"key spark.masters.*unknown key"):
        parse_config({**worlds.CONFIG, "spark": {"masters": "x"}})
    with pytest.raises(ConfigError, match="key engine"):
        parse_config({**worlds.CONFIG, "engine": "flink"})


def test_job_survives_serialization(tmp_path: Path) -> None:
    loaded = worlds.write_world(tmp_path, {"engine": "spark", "spark": {"master": "local[2]"}})
    job = SparkJob("steps.sample", "user_history_fg", (DAY,), loaded)
    assert SparkJob.from_message(json.loads(json.dumps(job.to_message()))) == job


def test_result_survives_serialization(world: worlds.BuiltWorld) -> None:
    check = Check("fg_parity", False, "differs", {"features": ["a"]}, is_blocking=False)
    result = StepResult(world.workspace.need("sample", DAY), {"rows": 3, "state": "rolled"}, (check,))
    assert result_from_message(json.loads(json.dumps(result_to_message(result, 1.5)))) == (result, 1.5)


def test_reason_is_the_librarys_error_even_inside_a_workers_traceback() -> None:
    error = SchemaError([Fault("table a", "no nulls", "1", "fix it"), Fault("table b", "x", "y", "z")])
    assert error_message(error) == str(error)
    trace = f'Traceback\n  File "x.py", line 1\ndssm_assets.core.errors.SchemaError: {error}\n\n\tat org.apache.spark.X'
    assert error_message(RuntimeError(f"An exception was thrown from the Python worker.\n{trace}")) == str(error)
    assert error_message(ValueError("something else")) == "ValueError: something else"


def test_only_assets_that_run_on_the_engine_have_the_kind_spark(tmp_path: Path) -> None:
    kinds = {
        engine: {spec.key.to_user_string(): spec.kinds for spec in build_definitions(loaded).resolve_all_asset_specs()}
        for engine in ("duckdb", "spark")
        for loaded in [worlds.write_world(tmp_path / engine, {"engine": engine})]
    }
    on_spark = {name for name, found in kinds["spark"].items() if "spark" in found}
    assert on_spark == {
        *("behavior", "user_activity", "item_activity", "pair_activity", "user_preferences", "user_history"),
        *("user_all_feature", "item_all_feature", "item_features_fg", "user_features_fg", "user_history_fg", "sample"),
        *("sample_fg", "positive_sample", "numeric_value_counts", "category_value_counts"),
    }
    assert {name for name in kinds["duckdb"] if kinds["duckdb"][name] != kinds["spark"][name]} == on_spark
    assert not [name for name in on_spark if "duckdb" in kinds["spark"][name]]


def test_jobs_can_run_with_another_launcher(world: worlds.BuiltWorld, tmp_path: Path) -> None:
    loaded = world.copy(tmp_path / "copy", {"engine": "spark"})
    launched: list[dict[str, Any]] = []

    def launch(context: dg.AssetExecutionContext, scene: Any, extras: Any) -> list[dict[str, Any]]:
        launched.append(dict(extras))
        job = SparkJob.from_message(extras)
        results = LazyStep(job.module, job.step)(open_workspace(scene, context.log.info), job.days)
        return [result_to_message(result, 0.25) for result in results]

    instance = dg.DagsterInstance.ephemeral()
    run_days(build_definitions(loaded, launch=launch), instance, ["sample"], [DAY])
    assert [(job["module"], job["step"], job["days"]) for job in launched] == [("steps.sample", "sample", [DAY])]
    event = instance.get_latest_materialization_event(dg.AssetKey("sample"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["seconds"].value == 0.25
    assert event.asset_materialization.metadata["digest"].value == world.workspace.need("sample", DAY).digest


FAULTY = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_custom_message({"fault": f"table {pipes.extras['step']}: expected no nulls"})
raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(3)", "failed with code 3. To fix: read its output in the run's stderr"),
        (FAULTY, "^table sample: expected no nulls$"),
    ],
    ids=["silent", "with its reason"],
)
def test_failed_job_is_the_error_of_the_run(tmp_path: Path, program: str, message: str) -> None:
    loaded = worlds.write_world(tmp_path, {"engine": "spark", "spark": {"submit": [sys.executable, "-c", program]}})
    with pytest.raises(SubmittedJobError, match=message):
        worlds.materialize(loaded, ["sample"], [DAY])


DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[1] + ".new", sys.argv[1])
child.wait()
"""


def test_submit_program_that_ignores_the_interrupt_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that waits for spark-submit ignores it, for example."""
    monkeypatch.setattr(spark_runs, "_END_SECONDS", 0.5)
    pid_file = tmp_path / "pids"
    loaded = worlds.write_world(tmp_path, {"engine": "spark", "spark": {"submit": [sys.executable, "-c", DEAF, str(pid_file)]}})

    def cancel() -> None:
        if holds(pid_file.exists, 60):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        worlds.materialize(loaded, ["sample"], [DAY])
    pids = {*map(int, pid_file.read_text().split())}
    assert holds(lambda: not pids & descendants(all_of_machine=True), 60)
    assert open_workspace(loaded).find("sample", DAY) is None
