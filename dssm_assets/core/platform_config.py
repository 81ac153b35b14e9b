"""The section `platform` of the configuration: who owns the assets, what starts by itself, who is told of a failure.

Belongs here: its keys and their bounds. Does not belong here: schedules, sensors and links themselves (`defs`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from pydantic import Field, field_validator

from dssm_assets.core.section import Section

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
