"""The runs that make some assets and what they need and lack, in order: what `--with-upstream`, the demo and a launched run make.

Belongs here: which runs, of which days. Does not belong here: which days an asset needs (`needed_days.py`), making the runs
(`upstream_runs.py`, `materialize.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.needed_days import NeededDays, needed_days
from dssm_assets.defs.scene import Scene, name_days
from dssm_assets.steps.workspace import Workspace, day_before, days_between, has_other_settings, is_current


@dataclass(frozen=True)
class PlannedRun:
    """One run: daily assets over a range of days, or windowed assets of one day."""

    names: tuple[str, ...]
    days: tuple[str, ...]
    is_windowed: bool

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


def plan_missing(scene: Scene, wanted: Wanted) -> RunPlan:
    """Returns the runs that make what some assets need and lack; these assets on these days are left to a run of theirs.

    They are made here, too, if an asset that is not one of them needs them. Empty if a window begins before the calendar, which
    nothing fills.
    """
    rows = all_rows()
    is_windowed = any(row.is_windowed for row in rows if row.name in wanted.names)
    if is_windowed and wanted.days[0] < first_evaluation_day(scene):
        return RunPlan(scene, ())
    plan = plan_upstream(scene, [wanted], is_remaking=True)
    needed = {name for run in plan.runs for name in run.names if name not in wanted.names}
    for row in reversed(rows):
        if row.name in needed:
            needed.update(row.deps)
    left = [name for name in wanted.names if name not in needed]
    runs = []
    for run in plan.runs:
        if names := tuple(name for name in run.names if name not in left):
            runs.append(replace(run, names=names))
        if names := tuple(name for name in run.names if name in left):
            ranges = _group_consecutive([ds for ds in run.days if ds not in wanted.days])
            runs += [replace(run, names=names, days=days) for days in ranges]
    return RunPlan(scene, tuple(runs), plan.outdated)


def first_evaluation_day(scene: Scene) -> str:
    """Returns the first day whose window lies within the calendar."""
    config = scene.loaded.config
    return day_before(config.calendar.start.isoformat(), -config.window.days)


def plan_upstream(scene: Scene, wanted: Sequence[Wanted], *, is_remaking: bool) -> RunPlan:
    """Returns the runs that make some assets and what they need of what is not stored.

    Daily tables are made on the days that have none, over consecutive days in one run; from the first day on that one was made
    with other settings, it and what depends on it are made again. Of a day's windowed assets those are made that are not stored
    or were built from other inputs than the stored ones or with other settings, and what depends on them.
    A log's gaps before the rolling states that the days begin with stay.

    Args:
        is_remaking: make the wanted assets also where they are stored.
    """
    config, rows = scene.loaded.config, all_rows()
    workspace = scene.open_workspace(lambda _: None)
    start, end = config.calendar.start.isoformat(), scene.daily.get_last_partition_key() or ""

    def find_needed(names: Sequence[str], ds: str) -> NeededDays:
        return needed_days(rows, names, ds, start, config.window.days, config.evaluation.span_days)

    days = [(part.names, ds, find_needed(part.names, ds)) for part in wanted for ds in part.days]
    missing: dict[str, set[str]] = {row.name: set() for row in rows if not row.is_windowed}
    stored = {name: set(workspace.tables.partitions.days(name)) for name in missing}
    for names, ds, needed in days:
        first_log_day = _first_log_day(rows, needed, stored)
        for name, (first, last) in needed.daily.items():
            span = days_between(max(first, first_log_day) if needed.rows[name].is_log else first, last)
            missing[name].update(day for day in span if day not in stored[name] and day <= end)
        if is_remaking:
            for name in missing.keys() & set(names):
                missing[name].add(ds)
    outdated = _add_outdated(workspace, rows, missing, [needed for _, _, needed in days])
    runs = list(_group_daily(rows, missing))
    planned: dict[str, set[str]] = {}
    for names, ds, needed in days:
        made: list[str] = []
        for name in needed.windowed:
            manifest = workspace.find(name, ds)
            is_other = manifest is not None and has_other_settings(workspace, manifest)
            if is_other:
                outdated[name] = outdated.get(name, 0) + 1
            daily = find_needed([name], ds).daily
            if (
                manifest is None
                or is_other
                or (is_remaking and name in names)
                or any(dep in made for dep in needed.rows[name].deps)
                or any(missing[table] & set(days_between(*span)) for table, span in daily.items())
                or not is_current(workspace, manifest)
            ):
                made.append(name)
        before = planned.setdefault(ds, set())
        if left := tuple(name for name in made if name not in before):
            before.update(left)
            runs.append(PlannedRun(left, (ds,), True))
    return RunPlan(scene, tuple(runs), outdated)


def _first_log_day(rows: Sequence[AssetRow], needed: NeededDays, stored: Mapping[str, set[str]]) -> str:
    """Returns the day from which on a log must have no gap.

    If all rolling states are stored on the first day on which they are needed, none is rebuilt from the log before it. What the
    log lacks there stays as it is: perhaps the source lacks it, too, and histories are read without it.
    """
    first = {row.name: needed.daily[row.name][0] for row in rows if row.is_rolling and row.name in needed.daily}
    return min(first.values()) if first and all(ds in stored[name] for name, ds in first.items()) else needed.start


def _add_outdated(
    workspace: Workspace, rows: Sequence[AssetRow], missing: dict[str, set[str]], needed: Sequence[NeededDays]
) -> dict[str, int]:
    """Adds the days of daily tables that were made with other settings, and of what follows from them; returns how many of each.

    Rolling states and histories follow from all days before, so a table is made again from the first such day on.
    """
    first: dict[str, str] = {}
    outdated: dict[str, int] = {}
    for row in (row for row in rows if not row.is_windowed):
        days = {day for one in needed if row.name in one.daily for day in days_between(*one.daily[row.name])}
        stored = workspace.tables.partitions.find_days(row.name, sorted(days - missing[row.name]))
        changed = [ds for ds, manifest in stored.items() if has_other_settings(workspace, manifest)]
        if changed:
            outdated[row.name] = len(changed)
        begins = min([*changed, *(first[dep] for dep in row.deps if dep in first)], default=None)
        if begins is not None:
            first[row.name] = begins
            missing[row.name].update(ds for ds in stored if ds >= begins)
    return outdated


def _group_daily(rows: Sequence[AssetRow], missing: Mapping[str, set[str]]) -> Iterator[PlannedRun]:
    """Yields the runs of daily tables: those with the same missing days share runs, none before what it depends on."""
    groups: list[tuple[list[tuple[str, ...]], list[str]]] = []
    number: dict[str, int] = {}
    for row in rows:
        if not missing.get(row.name):
            continue
        ranges = _group_consecutive(sorted(missing[row.name]))
        first = max((number[dep] for dep in row.deps if dep in number), default=0)
        number[row.name] = next((group for group in range(first, len(groups)) if groups[group][0] == ranges), len(groups))
        if number[row.name] == len(groups):
            groups.append((ranges, []))
        groups[number[row.name]][1].append(row.name)
    for ranges, names in groups:
        for days in ranges:
            yield PlannedRun(tuple(names), days, False)


def _group_consecutive(days: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns ascending days as runs of consecutive days."""
    ranges: list[tuple[str, ...]] = []
    for ds in days:
        if ranges and ranges[-1][-1] == day_before(ds):
            ranges[-1] = (*ranges[-1], ds)
        else:
            ranges.append((ds,))
    return ranges
