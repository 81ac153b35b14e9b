"""The sections `duckdb`, `spark` and `platform` of the configuration: table engines, and the assets' life in Dagster."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from pydantic import Field, field_validator

from dssm_assets.core.config.section import Section

_MIN_MEMORY, _MAX_MEMORY = 64 * 1000**2, 64 * 1000**4


class DuckDB(Section):
    """Memory, threads and disk of the embedded engine. They do not change any result."""

    memory: str = Field(
        default="1GB",
        pattern=r"^[1-9][0-9]*(\.[0-9]+)? ?([KMG]i?B|TB)$",
        description="Memory limit, e.g. 512MB, of 64MB to 64TB; beyond it DuckDB spills to `scratch`.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="Threads; each needs memory for its own blocks (None: num_threads)."
    )
    scratch: str = Field(
        default="{home}/scratch",
        description="Local folder to spill to, and for the copy that a fit makes of its samples; `{home}` is the configuration's home folder.",
    )

    @field_validator("memory")
    @classmethod
    def _within_bounds(cls, value: str) -> str:
        number, unit = re.fullmatch(r"([0-9.]+) ?([A-Za-z]+)", value).groups()  # type: ignore[union-attr]
        power = "KMGT".index(unit[0]) + 1
        size = float(number) * (1024 if "i" in unit else 1000) ** power
        if not _MIN_MEMORY <= size <= _MAX_MEMORY:
            raise ValueError("memory must be from 64MB to 64TB")
        return value


class Spark(Section):
    """The cluster for table queries and feature generation with `engine: spark`. Put secrets into the environment."""

    master: str | None = Field(
        default=None,
        min_length=1,
        description="Master URL (spark://host:7077, yarn, k8s://https://host:6443, local[4]); None: as in spark-defaults.conf.",
    )
    submit: list[str] = Field(
        default=["spark-submit"], min_length=1, description="Program that submits a job, with its first arguments."
    )
    options: list[str] = Field(
        default_factory=list, description='Further options of spark-submit, e.g. ["--archives", "env.tar.gz#env"].'
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Spark properties: passed as --conf name=value.")
    partitions: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Maximum tasks of a shuffle (spark.sql.shuffle.partitions); small ones are merged.",
    )
    python: str | None = Field(
        default=None,
        min_length=1,
        description="Python of the workers, with this package installed (None: this Python for a local master, else python3 of "
        "each worker).",
    )


_OWNER: Final = re.compile(r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")


class Trigger(StrEnum):
    """What starts the daily chain. The other triggers are in the UI, switched off."""

    MANUAL = "manual"
    """Nothing: start runs by hand, or switch on the schedule or the sensor in the UI."""
    SCHEDULE = "schedule"
    """The clock: every day at schedule_at."""
    SENSOR = "sensor"
    """The data: as soon as all three source tables of a day have landed."""


class Platform(Section):
    """Owners, triggers, pools and alerts of a scene's assets in Dagster."""

    owners: list[str] = Field(
        default=["team:recommendation"], min_length=1, description="Owners of every asset: `team:<name>` or e-mail addresses."
    )
    trigger: Trigger = Field(default=Trigger.MANUAL, description="What starts the daily chain.")
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
        description="Hours after which total_hit_rate is overdue (default: 36 for an open calendar; never for one with an end).",
    )
    webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="Receives a POST of JSON for every failed run. If it contains a secret, put it into the environment "
        "variable DSSM_FAILURE_WEBHOOK instead.",
    )
    trainer_pool: str = Field(
        default="trainer",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Concurrency pool of dssm_model. Scenes of one pool never train at the same time; give scenes on "
        "different machines different pools.",
    )
    git_url: str | None = Field(
        default=None,
        pattern=r"^https://\S+$",
        description="Repository on GitHub or GitLab for code links (default: local files).",
    )
    git_branch: str = Field(default="main", min_length=1, description="Branch or tag of git_url.")

    @field_validator("owners")
    @classmethod
    def _known_form(cls, value: list[str]) -> list[str]:
        wrong = [owner for owner in value if not _OWNER.match(owner)]
        if wrong:
            raise ValueError(f"an owner is `team:<name>` or an e-mail address, not {', '.join(map(repr, wrong))}")
        return value
