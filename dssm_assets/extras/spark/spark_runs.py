"""Runs steps as jobs on a Spark cluster: submits them with spark-submit and receives their results through Dagster Pipes.

Each day's result arrives as a custom message and is reported like the result of a local step. Pipes' own materialization
report is not used, because it cannot name a partition.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.config.engines import Spark
from dssm_assets.core.errors import ConfigError, Fault, SubmittedJobError
from dssm_assets.defs.asset_row import LazyStep
from dssm_assets.defs.scene import Scene
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult

SCRIPT = Path(__file__).with_name("spark_job.py")
_QUIET = {"spark.log.level": "WARN", "spark.ui.showConsoleProgress": "false"}
"""Otherwise Spark prints thousands of lines to the run's stderr. A scene's spark.conf can turn them on again."""
_END_SECONDS = 20.0
"""An interrupted job is killed if it has not ended after so many seconds."""


def run_step(
    context: dg.AssetExecutionContext, scene: Scene, step: LazyStep, days: Sequence[str]
) -> "Iterator[tuple[StepResult, float]]":
    """Runs a step over some days as one job. Yields each day's result and the seconds it took."""
    from dssm_assets.extras.spark.spark_job import SparkJob, result_from_message

    launch = scene.launch or spark_submit
    messages = launch(context, scene.loaded, SparkJob(step.module, step.name, tuple(days), scene.loaded).to_message())
    yield from map(result_from_message, messages)


def spark_submit(
    context: dg.AssetExecutionContext, loaded: LoadedConfig, extras: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Runs a job with spark-submit, whose driver is a child of this process. Returns the job's custom messages.

    Raises:
        ConfigError: the program in spark.submit is not installed.
        SubmittedJobError: the job failed.
    """
    from dssm_assets.extras.spark.spark_job import FAULT

    spark = loaded.config.spark
    command = submit_command(spark, f"{loaded.config.name} {extras['step']}")
    injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
    with dg.open_pipes_session(context, injector, reader, extras=dict(extras)) as session:
        variables = {**os.environ, **_environment(spark), **session.get_bootstrap_env_vars()}
        job = subprocess.Popen(command, env=variables, start_new_session=True)
        try:
            code = job.wait()
        except BaseException:  # Dagster would end only spark-submit, not the driver
            context.log.info("interrupted: ending the job too")
            _end(job)
            raise
    messages = session.get_custom_messages()
    if code:
        faults = [message[FAULT] for message in messages if FAULT in message]
        raise SubmittedJobError(
            "; ".join(faults) or f"the job failed with code {code}. To fix: read its output in the run's stderr"
        )
    return messages


def _end(job: "subprocess.Popen[bytes]") -> None:
    """Interrupts the processes of a job (spark-submit and the driver), and kills them if they still run some seconds later."""
    end = time.monotonic() + _END_SECONDS
    with suppress(ProcessLookupError, PermissionError):  # the processes have ended
        os.killpg(job.pid, signal.SIGINT)
        while time.monotonic() < end:
            job.poll()  # until it is polled, an ended child counts as running
            os.killpg(job.pid, 0)
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def submit_command(spark: Spark, name: str) -> list[str]:
    program, *first = spark.submit
    conf = {**_QUIET, "spark.pyspark.driver.python": sys.executable, **spark.conf}
    master = ["--master", spark.master] if spark.master else []
    properties = [argument for key, value in conf.items() for argument in ("--conf", f"{key}={value}")]
    return [_find_program(program), *first, *master, "--name", name, *properties, str(SCRIPT)]


def _environment(spark: Spark) -> dict[str, str]:
    """Returns environment variables that choose this Python for the driver, and for workers if the master is local."""
    is_local = spark.master is not None and spark.master.startswith("local")
    return {"PYSPARK_DRIVER_PYTHON": sys.executable, **({"PYSPARK_PYTHON": sys.executable} if is_local else {})}


def _find_program(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        remedy = "install Spark's client, or pip install 'dssm-assets[spark]' (it needs Java 17)"
        raise ConfigError(Fault("configuration, key spark.submit", "a program that submits jobs", f"no {program!r}", remedy))
    return found
