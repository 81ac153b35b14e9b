"""Runs of assets over days in this process, as `dssm-assets materialize` and the demo make them, in one process or several.

Does not belong here: which runs (`defs/run_plan.py`), one run (`defs/runs.py`).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import ConfigError, DaysFailedError, DssmError, Fault
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import SAMPLE_GROUPS, all_rows
from dssm_assets.defs.automation import DAILY_TABLES, PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.run_plan import PlannedRun, RunPlan, Wanted, first_evaluation_day, plan_upstream
from dssm_assets.defs.runs import make_run, open_instance
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.parallel_runs import make_in_parallel
from dssm_assets.steps.workspace import days_between


def plan_runs(scene: Scene, name: str, first: str, last: str, *, with_upstream: bool = False) -> RunPlan:
    """Returns the runs that materialize an asset or a job over a range of days.

    Args:
        name: the asset or job; it is made even where it is stored.
        with_upstream: with everything that these days need and that is not stored, or was built from other inputs or with other
            settings.

    Raises:
        ConfigError: an unknown name, or a range that is empty or leaves the calendar.
    """
    rows = all_rows()
    names = _select_names(rows, name)
    days = days_between(first, last)
    calendar = scene.loaded.config.calendar
    faults = []
    if not names:
        known = ", ".join([DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH, *sorted(row.name for row in rows)])
        faults.append(Fault("name", f"one of: {known}", repr(name), "correct the spelling"))
    if not days:
        faults.append(Fault("range of days", "a first day that is not after the last", f"{first} to {last}", "swap them"))
    elif first < calendar.start.isoformat() or last > (scene.daily.get_last_partition_key() or ""):
        expected = f"days from {calendar.start} to {calendar.end or 'yesterday'}"
        remedy = "choose days of the calendar, or change calendar in the configuration"
        faults.append(Fault("range of days", expected, f"{first} to {last}", remedy))
    ConfigError.raise_if(faults)
    is_windowed = any(row.is_windowed for row in rows if row.name in names)
    if with_upstream:
        if is_windowed:
            _check_window(scene, first)
        return plan_upstream(scene, [Wanted(tuple(names), tuple(days))], is_remaking=True)
    runs = [(ds,) for ds in days] if is_windowed else [tuple(days)]
    return RunPlan(scene, tuple(PlannedRun(tuple(names), run, is_windowed) for run in runs))


def _check_window(scene: Scene, first: str) -> None:
    if first < (earliest := first_evaluation_day(scene)):
        days = scene.loaded.config.window.days
        expected = f"{days} days of the calendar before the first evaluation day: {earliest} or later"
        raise ConfigError(Fault("range of days", expected, first, "evaluate a later day, or shorten window.days"))


def _select_names(rows: Sequence[AssetRow], name: str) -> list[str]:
    names = job_assets(rows, name) if name in (DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH) else [name]
    return [row.name for row in rows if row.name in names]


def run_plan(plan: RunPlan, observer: Observer, instance_home: Path, processes: int = 1) -> None:
    """Makes the runs on the Dagster instance of a folder, which becomes one if it is not yet.

    Runs there whose process was killed are marked as failed before. An evaluation day that fails, because of its input or of a
    check, does not stop the next one; a run of daily tables that fails does.

    Args:
        processes: how many runs are made at the same time, each in a process.

    Raises:
        DssmError: what the failing run raised.
        DaysFailedError: several evaluation days failed; with each day's error.
    """
    runs = plan.runs if processes == 1 else tuple(_split_branches(plan.runs, processes))
    with open_instance(instance_home) as instance:
        end_dead_runs(instance)
        try:
            found = make_in_parallel(
                plan.scene,
                runs,
                _needed_runs(runs, is_warm=plan.scene.loaded.config.training.warm_start),
                partial(_make_runs, instance_home),
                observer,
                processes=processes,
                may_fail=lambda run: run.is_windowed,
            )
        finally:
            end_dead_runs(instance)  # of processes that were ended at work
    failed: dict[str, DssmError] = {}
    for place, error in sorted(found.items()):
        failed.setdefault(runs[place].days[0], error)
    if len(failed) > 1:
        raise DaysFailedError(failed)
    for error in failed.values():
        raise error


@contextmanager
def _make_runs(instance_home: Path, scene: Scene, observer: Observer) -> Iterator[Callable[[PlannedRun], str]]:
    defs = scene_definitions(scene, observer, makes_upstream=False)
    with open_instance(instance_home) as instance:
        yield partial(make_run, defs, instance, scene)


def _needed_runs(runs: Sequence[PlannedRun], *, is_warm: bool) -> list[frozenset[int]]:
    """Returns the places of the runs that end before each begins.

    Runs of the same daily tables do not need each other: see `_split_branches`. Evaluation days neither, unless a model starts from an earlier one. Their reports do: the gate and the trend
    read those of the days before.
    """
    deps, needed = {row.name: set(row.deps) for row in all_rows()}, []
    for place, run in enumerate(runs):
        wanted = set[str]().union(*(deps[name] for name in run.names))
        needed.append(
            frozenset(
                at
                for at, earlier in enumerate(runs[:place])
                if (run.is_windowed and (not earlier.is_windowed or is_warm or earlier.days == run.days))
                or (_is_report(run) and _is_report(earlier) and earlier.days < run.days)
                or (not run.is_windowed and (wanted - set(run.names)) & set(earlier.names))
            )
        )
    return needed


def _is_report(run: PlannedRun) -> bool:
    return run.is_windowed and TOTAL_HIT_RATE.name in run.names


def _split_branches(runs: Sequence[PlannedRun], processes: int) -> Iterator[PlannedRun]:
    """Yields the runs in the parts that need not wait for each other.

    Those of daily tables are cut where the graph branches: assets that lead to the same last ones stay together, except that
    rolling states and what reads features of the previous day are apart. Each process makes a part of the days, but of rolling
    states one makes all. Runs of an evaluation day are cut before its report.
    """
    daily = [run for run in runs if not run.is_windowed]
    everything = {name for run in daily for name in run.names}
    kinds = {row.name: (row.is_rolling, row.group in SAMPLE_GROUPS) for row in all_rows()}
    for run in runs:
        if run.is_windowed:
            first = run.names.index(TOTAL_HIT_RATE.name) if _is_report(run) else 0
            yield from (replace(run, names=names) for names in (run.names[:first], run.names[first:]) if names)
            continue
        branches: dict[tuple[frozenset[str], ...], list[str]] = {}
        ends = [_last_assets(names) for names in (everything, set(run.names))]
        for name in run.names:
            branches.setdefault(tuple(one[name] for one in ends), []).append(name)
        # What an asset depends on leads to all that the asset leads to.
        for _, names in sorted(branches.items(), key=lambda branch: -sum(map(len, branch[0]))):
            for (is_rolling, _), part in itertools.groupby(names, key=kinds.__getitem__):
                made = replace(run, names=tuple(part))
                yield from [made] if is_rolling else _split_days(made, processes)


def _split_days(run: PlannedRun, parts: int) -> Iterator[PlannedRun]:
    """Yields the run in parts of its days of equal length, as many as wanted if that leaves some days to each."""
    parts = max(1, min(parts, len(run.days) // _PART_DAYS))
    ends = [len(run.days) * part // parts for part in range(parts + 1)]
    yield from (replace(run, days=run.days[first:last]) for first, last in itertools.pairwise(ends))


_PART_DAYS: Final = 8
"""Days of a part at least: a run has a cost of its own."""


def _last_assets(names: set[str]) -> dict[str, frozenset[str]]:
    """Returns for each of some assets those that it leads to and that lead to no other of them."""
    found: dict[str, frozenset[str]] = {}
    for row in reversed(all_rows()):
        if row.name in names:
            next_ones = [found[other.name] for other in all_rows() if other.name in found and row.name in other.deps]
            found[row.name] = frozenset[str]().union(*next_ones) if next_ones else frozenset({row.name})
    return found
