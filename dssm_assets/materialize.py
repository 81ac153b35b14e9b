"""Materializing by name from the command line: an asset or a job, over a range of days, in this process.

Belongs here: what a name means and which runs follow. Does not belong here: making the runs (`defs/runs.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import AssetRow, Observer
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import DAILY_TABLES, PUBLISH, TRAIN_AND_EVALUATE, names_of
from dssm_assets.defs.runs import run_days, run_range
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import days_between


@dataclass(frozen=True)
class Work:
    """Runs to make: daily assets take the whole range in one run, windowed ones take one run per day."""

    scene: Scene
    names: tuple[str, ...]
    days: tuple[str, ...]
    is_windowed: bool

    @property
    def steps(self) -> int:
        """Returns the number of asset steps over all runs."""
        return len(self.names) * (len(self.days) if self.is_windowed else 1)


def plan(scene: Scene, name: str, first: str, last: str) -> Work:
    """Returns the runs that a name and a range of days mean.

    Raises:
        ConfigError: an unknown name, or a range that is empty or leaves the calendar.
    """
    rows = all_rows()
    chosen = _chosen(rows, name)
    days = days_between(first, last)
    calendar = scene.loaded.config.calendar
    faults = []
    if not chosen:
        known = ", ".join([DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH, *sorted(row.name for row in rows)])
        faults.append(Fault("name", f"one of: {known}", repr(name), "correct its spelling"))
    if not days:
        faults.append(Fault("range of days", "a first day that is not after the last", f"{first} to {last}", "swap them"))
    elif first < calendar.start.isoformat() or last > (scene.daily.get_last_partition_key() or ""):
        expected = f"days from {calendar.start} to {calendar.end or 'yesterday'}"
        faults.append(Fault("range of days", expected, f"{first} to {last}", "choose days inside, or change calendar"))
    if faults:
        raise ConfigError(faults)
    return Work(scene, tuple(row.name for row in chosen), tuple(days), chosen[0].is_windowed)


def _chosen(rows: Sequence[AssetRow], name: str) -> list[AssetRow]:
    names = names_of(rows, name) or [name]
    return [row for row in rows if row.name in names]


def run(work: Work, observer: Observer) -> None:
    """Makes the runs on the instance that DAGSTER_HOME names, else on one that ends with the process.

    Days are experiments of their own: a day whose check fails does not keep the days behind it from running.

    Raises:
        CheckFailedError: if a blocking check failed, with its sentence; over several days with those of every day.
    """
    defs = scene_definitions(work.scene, observer)
    keys = [work.scene.key(name).to_user_string() for name in work.names]
    with _instance() as instance:
        if not work.is_windowed:
            run_range(defs, instance, keys, work.days)
            return
        run_days(defs, instance, keys, work.days)


def _instance() -> dg.DagsterInstance:
    import os

    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()
