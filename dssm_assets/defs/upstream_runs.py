"""What a run lacks, made first: its days need other days and other assets, and these get runs of their own.

So one click, or one backfill, makes any evaluation day that the data allow. The runs are those of `materialize --with-upstream`
(`run_plan.py`). They work in the process of the run that needs them, before its first step.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import dagster as dg

from dssm_assets.core.errors import Fault, PartitionMissingError
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import build_jobs
from dssm_assets.defs.scene import Scene, name_days

if TYPE_CHECKING:
    from dssm_assets.defs.run_plan import PlannedRun


def make_upstream(scene: Scene, context: dg.AssetExecutionContext, row: AssetRow, log: Callable[[str], None]) -> None:
    """Makes what the run of a context lacks, if the asset is among its first.

    Runs of one home make daily tables one after the other, so that days of a backfill which start together make nothing twice.
    Windowed assets are those of the run's own day. They are made without the lock: they may wait for a pool.

    Args:
        row: the asset whose step begins.
        log: receives the progress of the runs.

    Raises:
        DssmError: what a run raised.
        PartitionMissingError: there is nothing to evaluate on the day.
    """
    from dssm_assets.defs.run_plan import Wanted, plan_missing
    from dssm_assets.defs.runs import make_run
    from dssm_assets.storage.local_files import folder_lock

    rows, nodes = all_rows(), {node.name for node in context.job_def.nodes}
    names = [one.name for one in rows if scene.op(one.name) in nodes]
    if any(dep in names for dep in row.deps):
        return
    wanted = Wanted(tuple(names), tuple(context.partition_keys))
    plan = plan_missing(scene, wanted)
    if not plan.runs:
        return
    progress = _Progress(log)
    jobs = [*build_jobs(rows, scene).values()]
    defs = dg.Definitions(assets=[build_asset(one, scene, progress) for one in rows], jobs=jobs)

    def make(runs: "Iterable[PlannedRun]") -> None:
        for run in runs:
            log(f"made first, in run {make_run(defs, context.instance, scene, run, context.run)[:8]}: {run}")

    log(f"makes first what is missing: {'; '.join(map(str, plan.runs))}")
    if not all(run.is_windowed for run in plan.runs):
        scene.loaded.home.mkdir(parents=True, exist_ok=True)
        with folder_lock(scene.loaded.home):
            plan = plan_missing(scene, wanted)  # another run may have made some meanwhile
            make(run for run in plan.runs if not run.is_windowed)
    make(run for run in plan.runs if run.is_windowed)
    if progress.skipped:
        where, expected = f"day {name_days(context.partition_keys)}", "something to evaluate"
        raise PartitionMissingError(Fault(where, expected, progress.skipped, "choose another day"))


class _Progress(Observer):
    """Sends progress to the log of the run that waits; notes why a day was skipped."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self.skipped = log, ""

    def on_log(self, text: str) -> None:
        self._log(text)

    def on_skipped(self, ds: str, reason: str) -> None:
        self.skipped = reason
