"""Plans the runs that make some assets and their missing inputs, in order. Used by `--with-upstream`, the demo, launched runs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from dssm_assets.core.errors import Fault
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import SAMPLE_GROUPS, all_rows
from dssm_assets.defs.scene import Scene, name_days
from dssm_assets.steps.workspace import Workspace, day_before, days_between, has_other_settings, is_current, truth_days


@dataclass(frozen=True)
class PlannedRun:
    """One run: daily assets over a range of days, or windowed assets of one day."""

    names: tuple[str, ...]
    days: tuple[str, ...]
    is_windowed: bool

    def __str__(self) -> str:
        return f"{name_days(self.days)}: {', '.join(self.names)}"


@dataclass(frozen=True)
class RunPlan:
    """The runs that materialize some assets, in order."""

    scene: Scene
    runs: tuple[PlannedRun, ...]
    outdated: Mapping[str, int] = field(default_factory=dict)
    """Asset -> number of days to make again because they were made with other settings."""

    @property
    def days_by_asset(self) -> dict[str, int]:
        """Returns asset -> number of days to make, in the order of the runs."""
        return dict(Counter(name for run in self.runs for name in run.names for _ in run.days))


@dataclass(frozen=True)
class Wanted:
    names: tuple[str, ...]
    days: tuple[str, ...]


@dataclass(frozen=True)
class NeededDays:
    """The days and assets needed to make some assets of a day, including these assets.

    Attributes:
        daily: daily table -> first and last needed day.
        windowed: windowed assets of the day, in pipeline order.
    """

    daily: dict[str, tuple[str, str]]
    windowed: list[str]


def needed_days(rows: Sequence[AssetRow], names: Sequence[str], ds: str, start: str, window: int, span: int = 1) -> NeededDays:
    """Returns everything needed to make some assets of a day: a range of days of each daily table, and windowed assets of the day.

    A log is needed from the calendar's start, because histories are read across days. A day of a log needs no earlier days. Samples
    are needed for the window, and for the day itself if it is scored. Features are needed from the day before each sample.

    Example: with a window of 6 days, total_hit_rate of January 12th needs behavior of the 1st to the 12th, sample_fg of the 6th to
    the 12th, user_features_fg of the 5th to the 11th, and dssm_model of the 12th.

    Args:
        start: first day of the calendar; no day before it is needed.
        window: length of the training window in days.
        span: number of days, from the day on, with interactions that are the day's truth.
    """
    by_name = {row.name: row for row in rows}
    daily: dict[str, tuple[str, str]] = {}

    def is_feature(row: AssetRow) -> bool:
        return not row.is_log and row.group not in SAMPLE_GROUPS

    def add(name: str, first: str, last: str, *, is_alone: bool = False) -> None:
        """Adds days of a daily table and their needs. `is_alone`: adds only these days, even of a log."""
        row = by_name[name]
        first = start if row.is_log and not is_alone else max(first, start)
        if last < first:
            return  # before the calendar
        known = daily.get(name, (first, last))
        days = min(first, known[0]), max(last, known[1])
        if daily.get(name) == days:
            return
        daily[name] = days
        for dep in row.deps:
            if row.group in SAMPLE_GROUPS and is_feature(by_name[dep]):
                add(dep, day_before(days[0]), day_before(days[1]))
            else:
                add(dep, *days, is_alone=row.is_log)

    windowed = {name for name in names if by_name[name].is_windowed}
    for row in reversed(rows):
        if row.name in windowed:
            windowed |= {dep for dep in row.deps if by_name[dep].is_windowed}
    for name in names:
        if name not in windowed:
            add(name, ds, ds, is_alone=True)
    in_order = [row for row in rows if row.name in windowed]
    for row in in_order:
        for dep in row.deps:
            if dep in row.day_deps:
                add(dep, ds, truth_days(ds, span)[-1] if row.reads_span else ds)
            elif not by_name[dep].is_windowed:
                add(dep, day_before(ds, window), day_before(ds))
    if windowed:  # vectors are computed from the previous day's features
        for name in [name for name in daily if is_feature(by_name[name])]:
            add(name, day_before(ds), day_before(ds))
    return NeededDays(daily, [row.name for row in in_order])


def find_fault_of_days(scene: Scene, first: str, last: str, *, is_windowed: bool) -> Fault | None:
    """Returns a fault if some days of a range cannot be made, at present or ever. None if all can be made.

    Args:
        is_windowed: the days are evaluation days.
    """
    config = scene.loaded.config
    calendar, span = config.calendar, config.evaluation.span_days
    latest = scene.last_day(is_windowed=True)
    if is_windowed and latest is None:
        expected = f"{config.window.days} days of the calendar before an evaluation day, and {span} from it on"
        return Fault("range of days", expected, "a shorter calendar", "give more days, or shorten window.days")
    if first < calendar.start.isoformat() or last > (scene.last_day(is_windowed=False) or ""):
        expected = f"days from {calendar.start} to {calendar.end or 'yesterday'}"
        remedy = "choose days of the calendar, or change calendar in the configuration"
        return Fault("range of days", expected, f"{first} to {last}", remedy)
    if is_windowed and first < (earliest := scene.first_evaluation_day.isoformat()):
        expected = f"{config.window.days} days of the calendar before the first evaluation day: {earliest} or later"
        return Fault("range of days", expected, first, "evaluate a later day, or shorten window.days")
    if is_windowed and last > str(latest):
        expected = f"{span} days (evaluation.span_days) that have ended from the last evaluation day on: {latest} or earlier"
        return Fault("range of days", expected, last, "evaluate an earlier day")
    return None


def plan_missing(scene: Scene, wanted: Wanted) -> RunPlan:
    """Returns the runs that make the missing inputs of some assets.

    The assets themselves are planned only if another input needs them.
    """
    rows = all_rows(scene.loaded.config)
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


def plan_upstream(scene: Scene, wanted: Sequence[Wanted], *, is_remaking: bool) -> RunPlan:
    """Returns the runs that make some assets and their inputs.

    A day of a daily table is made if
    - it is not stored, and not after the calendar's end;
    - it was requested, and `is_remaking` is true;
    - it, or an earlier day, was made with other settings;
    - this day, or an earlier day, of an input table is made.

    A windowed asset of a day is made if
    - it is not stored, or it was requested and `is_remaking` is true;
    - it was made with other settings, or its inputs have changed since;
    - one of its inputs is made.

    Args:
        is_remaking: also make the requested assets if they are stored.
    """
    rows, workspace = all_rows(scene.loaded.config), scene.open_workspace(lambda _: None)
    end = scene.last_day(is_windowed=False) or ""
    needs = [(part.names, ds, _find_needed(scene, rows, part.names, ds)) for part in wanted for ds in part.days]
    daily = {row.name: set[str]() for row in rows if not row.is_windowed}
    stored_days = {name: set(workspace.tables.partitions.days(name)) for name in daily}
    for names, ds, needed in needs:
        for name, span in _trim_logs(rows, needed.daily, stored_days).items():
            daily[name].update(day for day in days_between(*span) if day not in stored_days[name] and day <= end)
        for name in daily.keys() & set(names if is_remaking else ()):
            daily[name].add(ds)
    outdated = _add_outdated(workspace, rows, daily, [needed for _, _, needed in needs])
    runs, planned = list(_group_daily(rows, daily)), set[tuple[str, str]]()
    for names, ds, needed in needs:
        made = set[str]()
        for row in (row for row in rows if row.name in needed.windowed):
            stored = workspace.find(row.name, ds)
            is_other = stored is not None and has_other_settings(workspace, stored)
            outdated[row.name] += is_other
            reads = _find_needed(scene, rows, [row.name], ds).daily
            if (
                stored is None
                or (is_remaking and row.name in names)
                or is_other
                or made.intersection(row.deps)
                or any(daily[table].intersection(days_between(*days)) for table, days in reads.items())
                or not is_current(workspace, stored)
            ):
                made.add(row.name)
        if left := tuple(name for name in needed.windowed if name in made and (name, ds) not in planned):
            runs.append(PlannedRun(left, (ds,), True))
            planned.update((name, ds) for name in left)
    return RunPlan(scene, tuple(runs), +outdated)


def _find_needed(scene: Scene, rows: Sequence[AssetRow], names: Sequence[str], ds: str) -> NeededDays:
    config = scene.loaded.config
    return needed_days(rows, names, ds, config.calendar.start.isoformat(), config.window.days, config.evaluation.span_days)


def _trim_logs(
    rows: Sequence[AssetRow], daily: Mapping[str, tuple[str, str]], stored_days: Mapping[str, set[str]]
) -> dict[str, tuple[str, str]]:
    """Returns the needed days of daily tables, without days of logs that stored rolling states already cover.

    If all rolling states are stored on their first needed day, none is rebuilt from the log before this day. Missing days of the
    log before it then stay missing; perhaps the source lacks them, too.
    """
    states = {row.name: daily[row.name][0] for row in rows if row.is_rolling and row.name in daily}
    if not states or any(first not in stored_days[name] for name, first in states.items()):
        return dict(daily)
    logs, begin = {row.name for row in rows if row.is_log}, min(states.values())
    return {name: (max(first, begin) if name in logs else first, last) for name, (first, last) in daily.items()}


def _add_outdated(
    workspace: Workspace, rows: Sequence[AssetRow], daily: Mapping[str, set[str]], needs: Sequence[NeededDays]
) -> Counter[str]:
    """Adds needed days made with other settings, and all days that depend on them. Returns table -> number of such days.

    Rolling states and histories depend on all earlier days, so a table is made again from the first such day on.
    """
    first: dict[str, str] = {}
    outdated: Counter[str] = Counter()
    for row in (row for row in rows if not row.is_windowed):
        days = {day for needed in needs if row.name in needed.daily for day in days_between(*needed.daily[row.name])}
        stored = workspace.tables.partitions.find_days(row.name, sorted(days - daily[row.name]))
        changed = [ds for ds, manifest in stored.items() if has_other_settings(workspace, manifest)]
        outdated[row.name] = len(changed)
        if begins := min([*changed, *(first[dep] for dep in row.deps if dep in first)], default=None):
            first[row.name] = begins
            daily[row.name].update(ds for ds in stored if ds >= begins)
    return outdated


def _group_daily(rows: Sequence[AssetRow], missing: Mapping[str, set[str]]) -> Iterator[PlannedRun]:
    """Yields the runs of daily tables. Tables with the same missing days share runs; a table comes after its dependencies."""
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
    numbered = groupby(enumerate(days), lambda pair: day_before(pair[1], pair[0]))
    return [tuple(ds for _, ds in pairs) for _, pairs in numbered]
