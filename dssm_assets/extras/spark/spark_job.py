"""The program that spark-submit runs: one step over some days on a cluster, controlled through Dagster Pipes.

    spark-submit [options] dssm_assets/extras/spark/spark_job.py

The job is described by the extras of the Pipes context (`spark_messages.py`). Log lines are sent back as they are written, and
a custom message for each finished day, or one that says why the job failed. Pipes' parameters come from the environment, or
from the command line (`--dagster-pipes-context`, `--dagster-pipes-messages`) with launchers that pass arguments, such as EMR.
The parameters say where messages go: a file, standard output, or an S3 bucket.
"""

from __future__ import annotations

import re
import time
import warnings
from typing import Any, Final

from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesDefaultMessageWriter,
    PipesEnvVarParamsLoader,
    PipesMessageWriter,
    PipesParamsLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from dssm_assets.core.errors import DssmError
from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.extras.spark.spark_messages import FAULT, SparkJob, result_to_message
from dssm_assets.steps.workspace import open_workspace

_LIBRARY_ERROR: Final = re.compile(r"dssm_assets\.core\.errors\.\w+: (.*?)(?:\n\n|\n\tat |\n\s*During|\Z)", re.DOTALL)


def main() -> None:
    """Runs the job of the Pipes context.

    Raises:
        Exception: the error of the step, after it was reported.
    """
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")  # pandas is not used here
    from pyspark.sql import SparkSession

    params = _params_loader()
    with open_dagster_pipes(params_loader=params, message_writer=_message_writer(params)) as pipes:
        session = SparkSession.builder.getOrCreate()
        try:
            run_job(pipes, session)
        except Exception as error:
            pipes.report_custom_message({FAULT: error_message(error)})
            raise
        finally:
            session.stop()


def run_job(pipes: PipesContext, session: Any) -> None:
    """Runs the step and reports each day."""
    job = SparkJob.from_message(pipes.extras)
    workspace = open_workspace(job.loaded, pipes.log.info, lambda tables: SparkEngine(tables, session))
    pipes.log.info(f"{job.step} on Spark {session.version}, {session.sparkContext.master}")
    started = time.perf_counter()
    for result in job.run(workspace):
        seconds = time.perf_counter() - started
        pipes.log.info(f"{result.manifest.key}: {result.manifest.rows:,} rows in {seconds:.1f} s")
        pipes.report_custom_message(result_to_message(result, seconds))
        started = time.perf_counter()


def error_message(error: Exception) -> str:
    """Returns the message of an error; of a library error that a worker raised, without Spark's stack trace."""
    if isinstance(error, DssmError):
        return str(error)
    found = _LIBRARY_ERROR.findall(str(error))
    return str(found[-1]).strip() if found else f"{type(error).__name__}: {error}"


def _params_loader() -> PipesParamsLoader:
    arguments = PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    return arguments if arguments.is_dagster_pipes_process() else PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]


def _message_writer(params: PipesParamsLoader) -> PipesMessageWriter[Any]:
    if params.is_dagster_pipes_process() and "bucket" in params.load_messages_params():
        import boto3

        return PipesS3MessageWriter(boto3.client("s3"), interval=1)
    return PipesDefaultMessageWriter()


if __name__ == "__main__":
    main()
