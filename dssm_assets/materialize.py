"""Makes planned runs in this process or in several, for `dssm-assets materialize` and the demo.

Does not belong here: planning needs (`defs/run_plan.py`), a single run (`defs/runs.py`).
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from dssm_assets.core.days import choose_day
from dssm_assets.core.errors import ConfigError, DaysFailedError, DssmError, Fault
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import SAMPLE_GROUPS, all_rows, declare_rows
from dssm_assets.defs.automation import DAILY_TABLES, PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.run_plan import PlannedRun, RunPlan, Wanted, find_fault_of_days, plan_upstream
from dssm_assets.defs.runs import make_run, open_instance
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.parallel_runs import make_in_parallel
from dssm_assets.steps.workspace import days_between


def plan_runs(scene: Scene, name: str, first: str, last: str, *, with_upstream: bool = False) -> RunPlan:
    """Returns the runs that materialize an asset or a job over a range of days.

    Args:
        name: the asset or job. Its stored days are made again.
        first, last: days in the form of `read_day`, chosen among the days that can be made.
        with_upstream: also make inputs that are missing, stale or made with other settings.

    Raises:
        ConfigError: the name is unknown, or the range is empty or leaves the calendar.
        PartitionMissingError: no day can be made, so `first` or `latest` means nothing.
    """
    rows = all_rows(scene.loaded.config)
    found = job_assets(rows, name) or [name]  # in pipeline order
    names = [row.name for row in rows if row.name in found]
    is_windowed = any(row.is_windowed for row in rows if row.name in names)
    makeable = (scene.windowed if is_windowed else scene.daily).get_partition_keys()
    if not makeable and (fault := find_fault_of_days(scene, first, last, is_windowed=is_windowed)):
        raise ConfigError(fault)
    first, last = (choose_day(day, makeable, name, "a day that can be made") for day in (first, last))
    days = days_between(first, last)
    faults = []
    if not names:
        known = ", ".join([DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH, *sorted(row.name for row in rows)])
        faults.append(Fault("name", f"one of: {known}", repr(name), "correct the spelling"))
    if not days:
        faults.append(Fault("range of days", "a first day that is not after the last", f"{first} to {last}", "swap them"))
    elif fault := find_fault_of_days(scene, first, last, is_windowed=is_windowed):
        faults.append(fault)
    ConfigError.raise_if(faults)
    if not with_upstream:
        runs = [(ds,) for ds in days] if is_windowed else [tuple(days)]
        return RunPlan(scene, tuple(PlannedRun(tuple(names), run, is_windowed) for run in runs))
    return plan_upstream(scene, [Wanted(tuple(names), tuple(days))], is_remaking=True)


def run_plan(plan: RunPlan, observer: Observer, instance_home: Path, processes: int = 1) -> None:
    """Makes the runs on the Dagster instance in a folder. Creates a missing instance.

    First marks runs of killed processes as failed. If an evaluation day fails, by its input or a check, the next day still runs.
    If a run of daily tables fails, all stop.

    Args:
        processes: number of runs made at the same time, each in its own process.

    Raises:
        DssmError: the error of a failed run.
        DaysFailedError: several evaluation days failed. Has each day's error.
    """
    runs = plan.runs if processes == 1 else tuple(split_runs(plan.runs, processes))
    needs = needed_runs(runs, is_warm=plan.scene.loaded.config.training.warm_start)
    make = partial(_make_runs, instance_home)
    # Only modules of the first run are imported in advance, so that it begins sooner; other modules are imported when needed.
    first_modules = {f"dssm_assets.{row.step.module}" for row in declare_rows() if runs and row.name in runs[0].names}
    with open_instance(instance_home) as instance:
        end_dead_runs(instance)
        try:
            failed_runs = make_in_parallel(
                plan.scene,
                runs,
                needs,
                make,
                observer,
                processes=processes,
                may_fail=lambda run: run.is_windowed,
                modules=sorted(first_modules),
            )
        finally:
            end_dead_runs(instance)  # runs of processes that were killed while working
    failed: dict[str, DssmError] = {}
    for run, error in sorted(failed_runs.items()):
        failed.setdefault(runs[run].days[0], error)
    if len(failed) > 1:
        raise DaysFailedError(failed)
    for error in failed.values():
        raise error


def describe_rest(plan: RunPlan, made: Collection[tuple[str, str]], *, is_remaking: bool = True) -> str:
    """Says how much of a plan is stored after an interruption, and how to go on.

    Args:
        made: asset and day of each stored partition.
        is_remaking: the command makes its evaluation days again, so it should begin with the first that is left.
    """
    planned = [(name, ds, run.is_windowed) for run in plan.runs for name in run.names for ds in run.days]
    left = sorted({ds for name, ds, is_windowed in planned if is_windowed and (name, ds) not in made})
    evaluated = sorted({ds for _, ds, is_windowed in planned if is_windowed})
    rest = f" with --from {left[0]}" if is_remaking and left and left[0] > evaluated[0] else ""
    return f"{len(made):,} of {len(planned):,} partitions are stored; the same command{rest} makes the others"


@contextmanager
def _make_runs(instance_home: Path, scene: Scene, observer: Observer) -> Iterator[Callable[[PlannedRun], str]]:
    defs = scene_definitions(scene, observer, makes_upstream=False)
    with open_instance(instance_home) as instance:
        yield partial(make_run, defs, instance, scene)


def split_runs(runs: Sequence[PlannedRun], processes: int) -> Iterator[PlannedRun]:
    """Splits runs into pieces that can run in parallel.

    A rolling state is not split. Other daily tables are cut into ranges of days, samples separately, because they read features of
    the previous day. The report of an evaluation day is cut off and comes after later days: no process makes reports while days
    are left.
    """
    rows = {row.name: row for row in declare_rows()}
    reports: list[PlannedRun] = []
    for run in runs:
        if _is_report(run):
            report = run.names.index(TOTAL_HIT_RATE.name)
            if report:
                yield replace(run, names=run.names[:report])
            reports.append(replace(run, names=run.names[report:]))
            if len(reports) > processes:
                yield reports.pop(0)
            continue
        yield from reports
        reports.clear()
        if run.is_windowed:
            yield run
            continue
        group = lambda name: (rows[name].is_rolling, rows[name].group in SAMPLE_GROUPS)  # noqa: E731
        for (is_rolling, _), names in itertools.groupby(run.names, key=group):
            if is_rolling:
                yield from (replace(run, names=(name,)) for name in names)
            else:
                yield from _split_days(replace(run, names=tuple(names)), processes)
    yield from reports


def _split_days(run: PlannedRun, pieces: int) -> Iterator[PlannedRun]:
    """Splits a run into equal ranges of at least 8 days; shorter ones would not be worth the overhead of a run."""
    pieces = max(1, min(pieces, len(run.days) // 8))
    ends = [len(run.days) * piece // pieces for piece in range(pieces + 1)]
    yield from (replace(run, days=run.days[first:last]) for first, last in itertools.pairwise(ends))


def needed_runs(runs: Sequence[PlannedRun], *, is_warm: bool) -> list[frozenset[int]]:
    """Returns, for each run, the positions of the runs that must end before it begins.

    Pieces of the same daily tables do not need each other. Evaluation days need each other only if a model starts from an
    earlier model. Reports need the earlier reports, because the gate and the trend read them.
    """
    deps, needed = {row.name: set(row.deps) for row in declare_rows()}, []
    for number, run in enumerate(runs):
        inputs = set[str]().union(*(deps[name] for name in run.names)) - set(run.names)
        needed.append(
            frozenset(
                position
                for position, earlier in enumerate(runs[:number])
                if (run.is_windowed and (not earlier.is_windowed or is_warm or earlier.days == run.days))
                or (_is_report(run) and _is_report(earlier) and earlier.days < run.days)
                or (not run.is_windowed and inputs & set(earlier.names))
            )
        )
    return needed


def _is_report(run: PlannedRun) -> bool:
    return run.is_windowed and TOTAL_HIT_RATE.name in run.names
