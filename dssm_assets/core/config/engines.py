"""The section `duckdb` of the configuration: what the embedded table engine may take of the machine.

Belongs here: its keys and their bounds. Does not belong here: which engine runs (`config.py`), running it
(`storage/engines/engine.py`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from pydantic import Field, field_validator

from dssm_assets.core.config.section import Section


class DuckDB(Section):
    """Memory, threads and disk of the embedded engine. No result depends on them."""

    memory: str = Field(
        default="1GB",
        pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?([KMG]i?B|TB)$",
        description="What it may hold, e.g. 512MB; what is more goes to `scratch`.",
    )
    threads: int | None = Field(default=None, ge=1, description="Threads; each holds blocks of its own (None: num_threads).")
    scratch: str = Field(
        default="{home}/scratch", description="Local folder for what does not fit; `{home}` is the configuration's home folder."
    )


class ReadWith(StrEnum):
    """Who reads stored files for queries."""

    SPARK = "spark"
    """Spark's own parquet reader: reads only the columns that are asked for. For s3:// it needs the jar hadoop-aws."""
    WORKERS = "workers"
    """The Python workers, with pyarrow and fsspec (s3fs), as they write: needs no jar."""


class Spark(Section):
    """Where table algebra and feature generation run with `engine: spark`. Secrets: environment only."""

    master: str | None = Field(
        default=None,
        min_length=1,
        description="Master URL (spark://host:7077, yarn, k8s://https://host:6443, local[4]); None: what spark-defaults.conf "
        "of spark-submit says.",
    )
    submit: list[str] = Field(
        default=["spark-submit"], min_length=1, description="Program that submits a job, with arguments that come first."
    )
    options: list[str] = Field(
        default_factory=list, description='Further options of spark-submit, e.g. ["--archives", "env.tar.gz#env"].'
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Spark properties: passed as --conf name=value.")
    partitions: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Tasks of a shuffle at most (spark.sql.shuffle.partitions); small ones are joined.",
    )
    python: str | None = Field(
        default=None,
        min_length=1,
        description="Python of the workers, with this package installed (None: the run's own for a local master, else "
        "python3 of each worker).",
    )
    read_with: ReadWith = Field(
        default=ReadWith.SPARK,
        description="spark: its own parquet reader; workers: pyarrow in the workers, needs no jar for s3://.",
    )


_OWNER: Final = re.compile(r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")


class Trigger(StrEnum):
    """What starts the daily chain without a person. The others stay in the UI, switched off."""

    MANUAL = "manual"
    """Nothing: a person starts runs, or switches the schedule or the sensor on in the UI."""
    SCHEDULE = "schedule"
    """The clock: every day at schedule_at."""
    SENSOR = "sensor"
    """The data: as soon as all three source tables of a day are there."""


class Platform(Section):
    """How the assets of a scene live in Dagster."""

    owners: list[str] = Field(
        default=["team:recommendation"], min_length=1, description="Owners of every asset: `team:<name>` or e-mail addresses."
    )
    trigger: Trigger = Field(default=Trigger.MANUAL, description="What starts the daily chain; a deployment sets it.")
    schedule_at: str = Field(
        default="03:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="Time of day, in calendar.timezone, at which the schedule starts the chain of the day before.",
    )
    landed_marker: str | None = Field(
        default=None,
        min_length=1,
        description="ds_folders: a day has landed once its folder holds a file of this name, e.g. _SUCCESS "
        "(default: once it holds a data file).",
    )
    freshness_hours: float | None = Field(
        default=None,
        gt=0,
        le=24 * 366,
        description="Hours after which an unrenewed total_hit_rate is late (default: 36 for an open calendar; one with an end "
        "is never late).",
    )
    webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="Told of failed runs by a POST of JSON. If it holds a secret, put it into the environment variable "
        "DSSM_FAILURE_WEBHOOK instead.",
    )
    trainer_pool: str = Field(
        default="trainer",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Concurrency pool of dssm_model. Scenes of one pool never train at the same time; scenes that train on "
        "machines of their own name different ones.",
    )
    git_url: str | None = Field(
        default=None,
        pattern=r"^https://\S+$",
        description="Repository on GitHub or GitLab that code links lead to (default: local files).",
    )
    git_branch: str = Field(default="main", min_length=1, description="Branch or tag of git_url.")

    @field_validator("owners")
    @classmethod
    def _known_form(cls, value: list[str]) -> list[str]:
        wrong = [owner for owner in value if not _OWNER.match(owner)]
        if wrong:
            raise ValueError(f"an owner is `team:<name>` or an e-mail address, not {', '.join(map(repr, wrong))}")
        return value
