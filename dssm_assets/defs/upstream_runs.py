"""Makes runs inside another run's process: missing inputs before its first step, and the runs of the daily chain.

So one click or one backfill makes any evaluation day for which there is data. `run_plan.py` plans the runs, as for
`materialize --with-upstream`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import dagster as dg

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import (
    DAILY_CHAIN,
    DAILY_TABLES,
    PUBLISH,
    TRAIN_AND_EVALUATE,
    build_jobs,
    evaluated_day,
    job_assets,
)
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import tag_run

if TYPE_CHECKING:
    from dssm_assets.defs.run_plan import PlannedRun, RunPlan

_RESUMED_TAG = "dagster/is_resume_retry"


def make_upstream(scene: Scene, context: dg.AssetExecutionContext, row: AssetRow, log: Callable[[str], None]) -> None:
    """Makes the missing inputs of a run if `row` is one of its first assets. Raises the errors of the runs it makes."""
    from dssm_assets.defs.run_plan import Wanted, plan_missing

    rows, nodes = all_rows(scene.loaded.config), {node.name for node in context.job_def.nodes}
    names = [one.name for one in rows if scene.op(one.name) in nodes]
    if any(dep in names for dep in row.deps):
        return
    wanted = Wanted(tuple(names), tuple(context.partition_keys))
    _make_runs(scene, context, lambda: plan_missing(scene, wanted), log)


def build_chain(scene: Scene) -> dg.JobDefinition:
    """Returns the job that makes a whole day, from its source tables to the published bundle.

    Daily tables and evaluations have different partitions, so an asset job cannot contain both. This job starts runs for each.
    """

    @dg.op(name=scene.name("make_day"))
    def make_day(context: dg.OpExecutionContext) -> None:
        from dssm_assets.defs.run_plan import Wanted, plan_upstream

        tag_run(context.instance, context.run)
        rows, ds = all_rows(scene.loaded.config), context.partition_key
        wanted = [Wanted(tuple(job_assets(rows, DAILY_TABLES)), (ds,))]
        if (evaluated := evaluated_day(scene, ds)) is not None:
            wanted += [Wanted(tuple(job_assets(rows, job)), (evaluated,)) for job in (TRAIN_AND_EVALUATE, PUBLISH)]
        is_remaking = _RESUMED_TAG not in context.run.tags
        _make_runs(scene, context, lambda: plan_upstream(scene, wanted, is_remaking=is_remaking), context.log.info)

    @dg.job(
        name=scene.name(DAILY_CHAIN),
        partitions_def=scene.daily,
        description="One day, from its source tables to the published bundle, in runs of the three other jobs. The schedule and the "
        "sensor start it. The gate runs before the bundle is published. For many days at once: a backfill of train_and_evaluate.",
        tags=scene.tags,
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        make_day()

    return job


def _make_runs(
    scene: Scene,
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    find_plan: "Callable[[], RunPlan]",
    log: Callable[[str], None],
) -> None:
    """Makes the runs of a plan in the process of a run.

    Runs with the same home make daily tables one after the other, under a lock, so that a backfill makes nothing twice. Windowed
    assets belong to the run's own day and are made without the lock, because they may wait for a pool.
    """
    from dssm_assets.defs.runs import make_run
    from dssm_assets.storage.local_files import folder_lock

    plan = find_plan()
    if not plan.runs:
        return
    rows = all_rows(scene.loaded.config)
    assets = [build_asset(one, scene, _Progress(log)) for one in rows]
    defs = dg.Definitions(assets=assets, jobs=[*build_jobs(rows, scene).values()])

    def make(runs: "Iterable[PlannedRun]") -> None:
        for run in runs:
            log(f"made, in run {make_run(defs, context.instance, scene, run, context.run)[:8]}: {run}")

    log(f"makes first: {'; '.join(map(str, plan.runs))}")
    if not all(run.is_windowed for run in plan.runs):
        scene.loaded.home.mkdir(parents=True, exist_ok=True)
        with folder_lock(scene.loaded.home):
            plan = find_plan()  # planned again, because another run may have made some of it meanwhile
            make(run for run in plan.runs if not run.is_windowed)
    make(run for run in plan.runs if run.is_windowed)


class _Progress(Observer):
    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def on_log(self, text: str) -> None:
        self._log(text)
