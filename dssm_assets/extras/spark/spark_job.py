"""The program that spark-submit runs: one step over some days on a cluster, controlled through Dagster Pipes.

    spark-submit [options] dssm_assets/extras/spark/spark_job.py

The job (`SparkJob`) arrives in the `extras` of the Pipes context. The program sends back log lines, a custom message for each
finished day, and the error if it fails. Pipes' parameters tell it where to send messages: to a file, to standard output, or to
an S3 bucket. They come from the environment, or from the command line with launchers such as EMR.
"""

from __future__ import annotations

import importlib
import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import dagster_pipes

from dssm_assets.core.errors import DssmError
from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.steps.workspace import Check, StepResult, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, config_from_json, config_to_json
from dssm_assets.storage.manifest import Manifest

FAULT: Final = "fault"
"""Key of the message with the error of a failed job."""
_LIBRARY_ERROR: Final = re.compile(r"dssm_assets\.core\.errors\.\w+: (.*?)(?:\n\n|\n\tat |\n\s*During|\Z)", re.DOTALL)


@dataclass(frozen=True)
class SparkJob:
    """A job: run the function `step` of the module `dssm_assets.<module>` over some days of a scene."""

    module: str
    step: str
    days: tuple[str, ...]
    loaded: LoadedConfig

    def to_message(self) -> dict[str, Any]:
        return {"module": self.module, "step": self.step, "days": list(self.days), "scene": config_to_json(self.loaded)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> SparkJob:
        return cls(message["module"], message["step"], tuple(message["days"]), config_from_json(message["scene"]))


def result_to_message(result: StepResult, seconds: float) -> dict[str, Any]:
    """Converts a day's result and duration to JSON values. Report and images are left out."""
    checks = [asdict(check) for check in result.checks]
    body = {"manifest": result.manifest.to_json(), "facts": dict(result.facts), "checks": checks, "seconds": seconds}
    return dict(json.loads(json.dumps(body)))


def result_from_message(message: Mapping[str, Any]) -> tuple[StepResult, float]:
    checks = tuple(Check(**check) for check in message["checks"])
    return StepResult(Manifest.from_json(message["manifest"]), message["facts"], checks), float(message["seconds"])


def main() -> None:
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")  # pandas is not used here
    from pyspark.sql import SparkSession

    arguments = dagster_pipes.PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    params: dagster_pipes.PipesParamsLoader = arguments
    if not arguments.is_dagster_pipes_process():
        params = dagster_pipes.PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]
    writer: dagster_pipes.PipesMessageWriter[Any] = dagster_pipes.PipesDefaultMessageWriter()
    if params.is_dagster_pipes_process() and "bucket" in params.load_messages_params():
        import boto3

        writer = dagster_pipes.PipesS3MessageWriter(boto3.client("s3"), interval=1)
    with dagster_pipes.open_dagster_pipes(params_loader=params, message_writer=writer) as pipes:
        session = SparkSession.builder.getOrCreate()
        try:
            run_job(pipes, session)
        except Exception as error:
            pipes.report_custom_message({FAULT: error_message(error)})
            raise
        finally:
            session.stop()


def run_job(pipes: dagster_pipes.PipesContext, session: Any) -> None:
    job = SparkJob.from_message(pipes.extras)
    workspace = open_workspace(job.loaded, pipes.log.info, lambda tables: SparkEngine(tables, session))
    pipes.log.info(f"{job.step} on Spark {session.version}, {session.sparkContext.master}")
    step = getattr(importlib.import_module(f"dssm_assets.{job.module}"), job.step)
    started = time.perf_counter()
    for result in step(workspace, job.days):
        seconds = time.perf_counter() - started
        pipes.log.info(f"{result.manifest.key}: {result.manifest.rows:,} rows in {seconds:.1f} s")
        pipes.report_custom_message(result_to_message(result, seconds))
        started = time.perf_counter()


def error_message(error: Exception) -> str:
    """Returns an error's text. If a worker raised one of our errors, leaves out Spark's stack trace."""
    if isinstance(error, DssmError):
        return str(error)
    found = _LIBRARY_ERROR.findall(str(error))
    return str(found[-1]).strip() if found else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
