"""The sections `duckdb`, `spark` and `platform`: table engines, and how the assets run in Dagster."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from dssm_assets.core.config.section import Section

_MIN_MEMORY, _MAX_MEMORY = 64 * 1000**2, 64 * 1000**4


class DuckDB(Section):
    """Memory, threads and disk of the embedded engine. They do not change any result."""

    memory: str = Field(
        default="1GB",
        pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?([KMG]i?B|TB)$",
        description="Memory limit, of 64MB to 64TB, beyond which DuckDB spills to `scratch`.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="Threads; each needs memory of its own (default: training.num_threads)."
    )
    scratch: str = Field(default="{home}/scratch", description="Local folder to spill to, and for a fit's copy of the samples.")

    @field_validator("memory")
    @classmethod
    def _within_bounds(cls, value: str) -> str:
        number, unit = re.fullmatch(r"([0-9.]+) ?([A-Za-z]+)", value).groups()  # type: ignore[union-attr]
        size = float(number) * (1024 if "i" in unit else 1000) ** ("KMGT".index(unit[0]) + 1)
        if not _MIN_MEMORY <= size <= _MAX_MEMORY:
            raise ValueError("memory must be from 64MB to 64TB")
        return value


class Spark(Section):
    """The cluster for table queries and feature generation with `engine: spark`. Put secrets into the environment."""

    master: str | None = Field(
        default=None, min_length=1, description="e.g. spark://host:7077, yarn or local[4] (default: as in spark-defaults.conf)."
    )
    submit: list[str] = Field(
        default=["spark-submit"], min_length=1, description='With options: ["spark-submit", "--archives", "env.tar.gz#env"].'
    )
    conf: dict[str, str] = Field(
        default_factory=dict, description="Spark properties; `spark.pyspark.python` is the workers' Python, with this package."
    )


class Trigger(StrEnum):
    """What starts the daily chain. All other triggers are switched off, and can be switched on in the UI."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    """The clock: every day at schedule_at."""
    SENSOR = "sensor"
    """The data: as soon as all source tables of a day have landed."""


class Platform(Section):
    """Owners, triggers, pools and alerts of a scene's assets in Dagster."""

    owners: list[Annotated[str, Field(pattern=r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]] = Field(
        default=["team:recommendation"], min_length=1, description="Owners of every asset: `team:<name>` or e-mail addresses."
    )
    trigger: Trigger = Field(default=Trigger.MANUAL, description="What starts the daily chain.")
    schedule_at: str = Field(
        default="03:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="When the day before is made, in calendar.timezone."
    )
    landed_marker: str | None = Field(
        default=None, min_length=1, description="ds_folders: the file that tells a landed day, e.g. _SUCCESS (default: any)."
    )
    freshness_hours: float | None = Field(
        default=None,
        gt=0,
        le=24 * 366,
        description="Hours after a day's end by which behavior_table, positive_sample and total_hit_rate must be stored, else their check "
        "`freshness` fails (default: 36; no check for a calendar with an end).",
    )
    webhook_url: str | None = Field(
        default=None, pattern=r"^https?://\S+$", description="Gets a POST for failed runs; a secret one: DSSM_FAILURE_WEBHOOK."
    )
    mlflow_uri: str | None = Field(
        default=None,
        pattern=r"^(https?://[^@\s]+|sqlite:///\S+)$",
        description="MLflow server to log fits and hit rates to, `http://...`, or a file, `sqlite:///{home}/mlflow.db` (extra `mlflow`). "
        "Without user and password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    )
