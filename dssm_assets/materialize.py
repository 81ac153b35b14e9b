"""Runs of assets over days in this process, as `dssm-assets materialize` and the demo make them: planned, then made.

Belongs here: which runs, in which order, and what is stored already. Does not belong here: which days an asset needs
(`defs/needed_days.py`), one run (`defs/runs.py`).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from dssm_assets.defs.needed_days import NeededDays, needed_days
from dssm_assets.defs.runs import open_instance, run_day, run_range
from dssm_assets.defs.scene import Scene, name_days
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.parallel_runs import make_in_parallel
from dssm_assets.steps.workspace import Workspace, day_before, days_between, has_other_settings, is_current


@dataclass(frozen=True)
class PlannedRun:
    """One run: daily assets over a range of days, or windowed assets of one day.

    Attributes:
        is_last: it needs all runs before it.
    """

    names: tuple[str, ...]
    days: tuple[str, ...]
    is_windowed: bool
    is_last: bool = False

    def __str__(self) -> str:
        """Returns assets and days in one line."""
        return f"{name_days(self.days)}: {', '.join(self.names)}"


@dataclass(frozen=True)
class RunPlan:
    """The runs that materialize some assets, in order."""

    scene: Scene
    runs: tuple[PlannedRun, ...]
    outdated: Mapping[str, int] = field(default_factory=dict)
    """Asset -> on how many days it is made again because it was made with other settings."""

    @property
    def days_by_asset(self) -> dict[str, int]:
        """Returns on how many days each asset is made, in the order of the runs; empty if there is nothing to make."""
        counts: dict[str, int] = {}
        for run in self.runs:
            for name in run.names:
                counts[name] = counts.get(name, 0) + len(run.days)
        return counts


@dataclass(frozen=True)
class Wanted:
    """Assets to make on some days."""

    names: tuple[str, ...]
    days: tuple[str, ...]


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


def plan_upstream(scene: Scene, wanted: Sequence[Wanted], *, is_remaking: bool) -> RunPlan:
    """Returns the runs that make some assets and what they need of what is not stored.

    Daily tables are made on the days that have none, over consecutive days in one run; from the first day on that one was made
    with other settings, it and what depends on it are made again. Of a day's windowed assets those are made that are not stored
    or were built from other inputs than the stored ones or with other settings, and what depends on them.

    Args:
        is_remaking: make the wanted assets also where they are stored.
    """
    config, rows = scene.loaded.config, all_rows()
    workspace = scene.open_workspace(lambda _: None)
    start, end = config.calendar.start.isoformat(), scene.daily.get_last_partition_key() or ""
    window, span = config.window.days, config.evaluation.span_days
    by_day = [(one, needed_days(rows, one.names, ds, start, window, span), ds) for one in wanted for ds in one.days]
    missing: dict[str, set[str]] = {row.name: set() for row in rows if not row.is_windowed}
    for name, lacking in missing.items():
        stored = set(workspace.tables.partitions.days(name))
        for one, needed, ds in by_day:
            if name in needed.daily:
                lacking.update(day for day in days_between(*needed.daily[name]) if day not in stored and day <= end)
            if is_remaking and name in one.names:
                lacking.add(ds)
    outdated = _add_outdated(workspace, rows, missing, by_day)
    runs = list(_group_daily(rows, missing))
    planned: dict[str, set[str]] = {}
    for one, needed, ds in by_day:
        remade = set(one.names) if is_remaking else set()
        before = planned.setdefault(ds, set())
        names = [name for name in _windowed_to_make(workspace, needed, missing, ds, remade, outdated) if name not in before]
        if names:
            before.update(names)
            runs.append(PlannedRun(tuple(names), (ds,), True))
    return RunPlan(scene, tuple(runs), outdated)


def _add_outdated(
    workspace: Workspace,
    rows: Sequence[AssetRow],
    missing: dict[str, set[str]],
    by_day: Sequence[tuple[Wanted, NeededDays, str]],
) -> dict[str, int]:
    """Adds the days of daily tables that were made with other settings, and of what follows from them; returns how many of each.

    Rolling states and histories follow from all days before, so a table is made again from the first such day on.
    """
    first: dict[str, str] = {}
    outdated: dict[str, int] = {}
    for row in rows:
        if row.is_windowed:
            continue
        spans = [needed.daily[row.name] for _, needed, _ in by_day if row.name in needed.daily]
        stored = workspace.tables.partitions.find_days(
            row.name, sorted({day for span in spans for day in days_between(*span)} - missing[row.name])
        )
        changed = [ds for ds, manifest in stored.items() if has_other_settings(workspace, manifest)]
        if changed:
            outdated[row.name] = len(changed)
        begins = min([*changed, *(first[dep] for dep in row.deps if dep in first)], default=None)
        if begins is not None:
            first[row.name] = begins
            missing[row.name].update(ds for ds in stored if ds >= begins)
    return outdated


def _windowed_to_make(
    workspace: Workspace,
    needed: NeededDays,
    missing: dict[str, set[str]],
    ds: str,
    remade: set[str],
    outdated: dict[str, int],
) -> list[str]:
    """Returns the windowed assets of a day that are not stored, not current, or to be made again; counts those with other settings."""
    made: list[str] = []
    for name in needed.windowed:
        stored = workspace.find(name, ds)
        is_downstream = any(dep in made for dep in needed.rows[name].deps)
        daily = needed.of_asset(name, ds).daily
        has_new_daily = any(missing[table] & set(days_between(*days)) for table, days in daily.items())
        if stored is not None and has_other_settings(workspace, stored):
            outdated[name] = outdated.get(name, 0) + 1
        elif not (has_new_daily or is_downstream or name in remade or stored is None or not is_current(workspace, stored)):
            continue
        made.append(name)
    return made


def _group_daily(rows: Sequence[AssetRow], missing: dict[str, set[str]]) -> Iterator[PlannedRun]:
    """Yields the runs of daily tables: those with the same missing days share runs, none before what it depends on."""
    groups: list[tuple[list[str], list[tuple[str, ...]]]] = []
    place: dict[str, int] = {}
    for row in rows:
        if not missing.get(row.name):
            continue
        ranges = _consecutive(sorted(missing[row.name]))
        first = max((place[dep] for dep in row.deps if dep in place), default=0)
        found = next((at for at in range(first, len(groups)) if groups[at][1] == ranges), None)
        if found is None:
            found = len(groups)
            groups.append(([], ranges))
        groups[found][0].append(row.name)
        place[row.name] = found
    for names, ranges in groups:
        for days in ranges:
            yield PlannedRun(tuple(names), days, False)


def _consecutive(days: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns ascending days as runs of consecutive ones."""
    found: list[tuple[str, ...]] = []
    for ds in days:
        if found and found[-1][-1] == day_before(ds):
            found[-1] = (*found[-1], ds)
        else:
            found.append((ds,))
    return found


def _check_window(scene: Scene, first: str) -> None:
    config = scene.loaded.config
    start = config.calendar.start.isoformat()
    if day_before(first, config.window.days) < start:
        earliest = day_before(start, -config.window.days)
        expected = f"{config.window.days} days of the calendar before the first evaluation day: {earliest} or later"
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
def _make_runs(instance_home: Path, scene: Scene, observer: Observer) -> Iterator[Callable[[PlannedRun], None]]:
    defs = scene_definitions(scene, observer)
    with open_instance(instance_home) as instance:

        def make_run(run: PlannedRun) -> None:
            keys = [scene.key(name).to_user_string() for name in run.names]
            if run.is_windowed:
                run_day(defs, instance, keys, run.days[0])
            else:
                run_range(defs, instance, keys, run.days)

        yield make_run


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
                if run.is_last
                or (run.is_windowed and (not earlier.is_windowed or is_warm or earlier.days == run.days))
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
