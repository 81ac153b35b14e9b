"""The two ways to build many dates, each for a process of its own: as a backfill, and one by one.

Belongs here: the runs of each way and their cost. Does not belong here: comparing them (`backfill.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import dagster as dg

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.process_cost import measured
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.benchmarks.world_features import load_world

WINDOWED: Final = [
    row.name
    for row in all_rows()
    if row.is_windowed
    and not row.is_on_request
    and row.group in ("sample", "statistics", "config", "training")
    and row.name != "dssm_model"
]


def build_history(world: dict[str, Any], window: int, folder: str) -> None:
    """Builds the daily tables up to the first day that has a whole window before it."""
    made = World(**world)
    worlds.run_steps(load_world(made, Path(folder), window), worlds.DAILY, _history(made, window))


def build_dates(world: dict[str, Any], window: int, folder: str, is_one_by_one: bool) -> dict[str, Any]:
    """Builds the dates one way. Returns its CPU seconds by work, its number of runs, and of daily partitions built."""
    made = World(**world)
    loaded, dates = load_world(made, Path(folder), window), measured_dates(made, window)
    for names in (worlds.DAILY, WINDOWED):
        worlds.materialize(loaded, names, _history(made, window)[-1:])
    instance, cpu_s = dg.DagsterInstance.ephemeral(), {"daily tables": 0.0, "windowed tables": 0.0}
    for days in [[ds] for ds in dates] if is_one_by_one else [dates]:
        for work, names in (("daily tables", worlds.DAILY), ("windowed tables", WINDOWED)):
            with measured(work) as cost:
                worlds.materialize(loaded, names, days, instance)
            cpu_s[work] += cost.cpu_s
    events = [instance.fetch_materializations(dg.AssetKey(name), limit=10_000).records for name in worlds.DAILY]
    stored = open_workspace(loaded).tables.partitions.days(WINDOWED[-1])
    assert stored[-len(dates) :] == dates
    return {"cpu_s": cpu_s, "runs": instance.get_runs_count(), "built": sum(map(len, events))}


def _history(world: World, window: int) -> list[str]:
    return [world.day_before_log, *world.log_days[: window + 1]]


def measured_dates(world: World, window: int) -> list[str]:
    """Returns the days of the log that have a whole window before them, without the first, which warms up the process."""
    return world.log_days[window + 1 :]
