"""`dssm-assets materialize`: the runs of an asset or a job over a range of days, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import DAILY_TABLES, PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.runs import run_days, run_range
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.steps.workspace import days_between
from dssm_assets.storage.instance_file import write_instance_file


@dataclass(frozen=True)
class RunPlan:
    """Assets and days to materialize: daily assets take the whole range in one run, windowed ones take one run per day."""

    scene: Scene
    names: tuple[str, ...]
    days: tuple[str, ...]
    is_windowed: bool

    @property
    def step_count(self) -> int:
        """Returns the number of asset steps over all runs."""
        return len(self.names) * (len(self.days) if self.is_windowed else 1)


def plan_runs(scene: Scene, name: str, first: str, last: str) -> RunPlan:
    """Returns the runs that materialize an asset or a job over a range of days.

    Raises:
        ConfigError: an unknown name, or a range that is empty or leaves the calendar.
    """
    rows = all_rows()
    selected = _select_rows(rows, name)
    days = days_between(first, last)
    calendar = scene.loaded.config.calendar
    faults = []
    if not selected:
        known = ", ".join([DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH, *sorted(row.name for row in rows)])
        faults.append(Fault("name", f"one of: {known}", repr(name), "correct the spelling"))
    if not days:
        faults.append(Fault("range of days", "a first day that is not after the last", f"{first} to {last}", "swap them"))
    elif first < calendar.start.isoformat() or last > (scene.daily.get_last_partition_key() or ""):
        expected = f"days from {calendar.start} to {calendar.end or 'yesterday'}"
        remedy = "choose days of the calendar, or change calendar in the configuration"
        faults.append(Fault("range of days", expected, f"{first} to {last}", remedy))
    if faults:
        raise ConfigError(faults)
    return RunPlan(scene, tuple(row.name for row in selected), tuple(days), selected[0].is_windowed)


def _select_rows(rows: Sequence[AssetRow], name: str) -> list[AssetRow]:
    names = job_assets(rows, name) if name in (DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH) else [name]
    return [row for row in rows if row.name in names]


def run_plan(plan: RunPlan, observer: Observer, instance_home: Path) -> None:
    """Makes the runs on the Dagster instance of a folder, which becomes one if it is not yet.

    Runs there whose process was killed are marked as failed before. A day whose check fails does not stop the next day.

    Raises:
        CheckFailedError: if a blocking check failed, with the descriptions of every failed check.
    """
    defs = scene_definitions(plan.scene, observer)
    keys = [plan.scene.key(name).to_user_string() for name in plan.names]
    write_instance_file(instance_home)
    with dg.DagsterInstance.from_config(str(instance_home)) as instance:
        end_dead_runs(instance)
        if plan.is_windowed:
            run_days(defs, instance, keys, plan.days)
        else:
            run_range(defs, instance, keys, plan.days)
