"""Assets whose step runs as a job on a Spark cluster: submitted with spark-submit, heard through Dagster Pipes.

Log lines of the job appear in the run while it works. Its results come as custom messages, one per day, and become
metadata, checks and data versions by the same code as those of a step that runs in this process: Pipes' own report of
a materialization knows no days.

Belongs here: the command, its environment, what its messages mean, ending it with its run. Does not belong here: what the
job does (`deployment/spark_job.py`).
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.config.engines import Spark
from dssm_assets.core.errors import ConfigError, Fault, SubmittedJobError
from dssm_assets.defs.lazy_steps import LazyStep
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult

Launch = Callable[[dg.AssetExecutionContext, LoadedConfig, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Runs `deployment/spark_job.py` with these Pipes extras somewhere; returns its custom messages once it is done."""
_QUIET = {"spark.log.level": "WARN", "spark.ui.showConsoleProgress": "false"}
"""Spark's own lines go to the run's stderr: thousands of them, unless a scene's spark.conf wants them."""
_END_SECONDS = 20.0
"""What an interrupted job has for ending by itself."""
SCRIPT = Path(__file__).parent.parent / "deployment" / "spark_job.py"


class _KeptMessages(dg.PipesTempFileMessageReader):
    """Keeps what a job told, also when it fails: the client then raises and returns nothing."""

    messages: Sequence[Any] = ()

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[Mapping[str, Any]]:
        """Reads messages as the base class does."""
        try:
            with super().read_messages(handler) as params:
                yield params
        finally:
            self.messages = handler.get_custom_messages()


def submitted(
    context: dg.AssetExecutionContext, loaded: LoadedConfig, launch: Launch, step: LazyStep, days: Sequence[str]
) -> "Iterator[tuple[StepResult, float]]":
    """Runs a step over days as one job; yields each day's result and its seconds.

    Raises:
        SubmittedJobError: the job failed, with its own words where it had any.
    """
    from dssm_assets.steps.parallel import Job, result_of

    told = launch(context, loaded, Job(step.module, step.name, tuple(days), loaded).to_message())
    yield from map(result_of, told)


def spark_submit(
    context: dg.AssetExecutionContext, loaded: LoadedConfig, extras: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Runs a job with spark-submit, the driver as a child of this process; returns what it told.

    Raises:
        ConfigError: there is no program of the name in spark.submit.
        SubmittedJobError: the job failed.
    """
    from dssm_assets.steps.parallel import FAULT

    spark = loaded.config.spark
    reader = _KeptMessages()
    words = command(spark, f"{loaded.config.name} {extras['step']}")
    code = _run(context, words, _environment(spark), reader, extras)
    if code:
        faults = [message[FAULT] for message in reader.messages if FAULT in message]
        raise SubmittedJobError("; ".join(faults) or f"the job failed with code {code}; its output is in the run's stderr")
    return reader.messages


def _run(
    context: dg.AssetExecutionContext,
    words: Sequence[str],
    environment: Mapping[str, str],
    reader: dg.PipesMessageReader,
    extras: Mapping[str, Any],
) -> int:
    """Runs a command in a Pipes session; returns its exit code. Whatever interrupts this process ends the command's too.

    Dagster's own client signals the first process alone, and leaves the others running where that one, such as a shell that
    waits for the spark-submit which it started, does not end.
    """
    injector = dg.PipesTempFileContextInjector()
    with dg.open_pipes_session(context, injector, reader, extras=dict(extras)) as session:
        variables = {**os.environ, **environment, **session.get_bootstrap_env_vars()}
        job = subprocess.Popen(words, env=variables, start_new_session=True)
        try:
            return job.wait()
        except BaseException:
            context.log.info("interrupted: the job is ended too")
            _end(job)
            raise


def _end(job: "subprocess.Popen[bytes]") -> None:
    """Interrupts the processes of a job: spark-submit and the driver; after some seconds kills those that are left."""
    end = time.monotonic() + _END_SECONDS
    try:
        is_there = _signal_all(job, signal.SIGINT)
        while is_there and time.monotonic() < end:
            job.poll()  # a child that has ended counts as there until somebody asked
            time.sleep(0.05)
            is_there = _signal_all(job, 0)
    finally:
        _signal_all(job, signal.SIGKILL)
        job.wait()


def _signal_all(job: "subprocess.Popen[bytes]", number: int) -> bool:
    """Sends a signal to the processes of a job; tells whether there was any."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid, number)
        return True
    return False


def command(spark: Spark, name: str) -> list[str]:
    """Returns the command that submits a job of that name.

    Raises:
        ConfigError: there is no program of the name in spark.submit.
    """
    program, *first = spark.submit
    conf = {**_QUIET, "spark.sql.shuffle.partitions": str(spark.partitions), **spark.conf}
    master = ["--master", spark.master] if spark.master else []
    properties = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    return [_found(program), *first, *master, "--name", name, *spark.options, *properties, str(SCRIPT)]


def _environment(spark: Spark) -> dict[str, str]:
    """Returns what decides which Python runs where: the driver's is this one, that has what the job imports.

    Workers of a local master run on this machine and have it too, where no other is configured.
    """
    is_local = spark.master is not None and spark.master.startswith("local")
    python = spark.python or (sys.executable if is_local else None)
    return {"PYSPARK_DRIVER_PYTHON": sys.executable, **({"PYSPARK_PYTHON": python} if python else {})}


def _found(program: str) -> str:
    beside = Path(sys.executable).parent / program
    found = shutil.which(program) or (str(beside) if beside.is_file() else None)
    if found is None:
        remedy = "install Spark's client, or pip install 'dssm-assets[spark]' (it needs Java 17)"
        raise ConfigError(Fault("configuration, key spark.submit", "a program that submits jobs", f"no {program!r}", remedy))
    return found
