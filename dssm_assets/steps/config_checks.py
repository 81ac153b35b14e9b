"""A configuration held against its data before any run: everything that a run would stumble over, listed at once.

Belongs here: the order of the checks and what they read. Does not belong here: the rules, which stand with the things they
are about (`core/config/pipeline.py`, `core/sources`, `core/features`).

Every check goes on where another one failed, as far as it can. Read are: the user and the item table of the calendar's first
and last day, and of the log all columns that the configuration names, in blocks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.config.evaluation import SegmentKind
from dssm_assets.core.config.pipeline import BehaviorTable, Layout, PipelineConfig, SourceTable
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.features.expressions import SEQUENCE
from dssm_assets.core.features.generator import missing_inputs
from dssm_assets.core.features.spec import FgSpec, parse_fg
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.sources.log_scan import LogScan
from dssm_assets.core.sources.normalise import Entities, normalise_items, normalise_users
from dssm_assets.core.statistics.feature_config import check_names
from dssm_assets.steps.workspace import days_between
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source_columns import CsvTypes, PlannedFile, csv_types, plan_files
from dssm_assets.storage.sources.source_files import day_folders, list_files, open_folder

SHOWN = 5
_HISTORY = {col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS}
_SAMPLE = {col.REQUEST_ID, col.USER_ID, col.ITEM_ID, col.EVENT, col.EVENT_TIME_MS, col.HOUR, col.WEEKDAY}


@dataclass
class Validation:
    """What was found: faults, and figures worth reading where there are none."""

    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def trying(self, check: Callable[[], None]) -> None:
        """Runs a check and takes over what it raises."""
        try:
            check()
        except InputError as error:
            self.faults.extend(error.faults)


def validate(loaded: LoadedConfig, today: dt.date) -> Validation:
    """Returns everything in which a configuration and its data do not fit together.

    Args:
        loaded: the configuration; its feature definitions may be unchecked.
        today: an open calendar lasts up to the day before.
    """
    found = Validation()
    config = loaded.config
    last = config.calendar.end or today - dt.timedelta(days=1)
    days = days_between(config.calendar.start.isoformat(), last.isoformat())
    _check_calendar(found, config, days)
    specs: list[FgSpec] = []
    found.trying(lambda: specs.append(parse_fg(loaded.fg, read_file=loaded.read_fg_file)))
    entities = {side: _entities(found, config, side, days) for side in ("user", "item")}
    scan = LogScan(config.tables.behavior, config.calendar)
    found.trying(lambda: _scan(found, config, scan, days))
    _check_ids(found, entities, scan)
    _check_columns(found, config, entities, specs[0] if specs else None)
    return found


def _check_calendar(found: Validation, config: PipelineConfig, days: Sequence[str]) -> None:
    needed = config.window.days + 1
    if len(days) < needed:
        remedy = "make window.days smaller, or give more days"
        expected = f"at least {needed} days: a window of {config.window.days} and a day to score"
        found.faults.append(Fault("key calendar", expected, f"{len(days)} days", remedy))
    else:
        found.figures["days"] = f"{days[0]} to {days[-1]}, the first evaluation day is {days[config.window.days]}"


def _entities(found: Validation, config: PipelineConfig, side: str, days: Sequence[str]) -> pa.Table | None:
    """Returns the newest user or item table that can be read, None where none can."""
    table: SourceTable = getattr(config.tables, side)
    name = f"{side}_table"
    normalise: Callable[[pa.Table], Entities] = normalise_users if side == "user" else normalise_items
    read: list[pa.Table] = []

    def check() -> None:
        wanted = list(days)
        if table.layout is Layout.DS_FOLDERS:
            there = day_folders(open_folder(table, name))
            _check_days(found, name, [day for day in days if day not in there], table)
            wanted = [day for day in days if day in there]
        ends = sorted({*wanted[:1], *wanted[-1:]})
        for _, raw in read_days(table, ends, name=name, timezone=config.calendar.timezone):
            read.append(normalise(raw).table)

    found.trying(check)
    if read:
        found.figures[name] = f"{read[-1].num_rows:,} rows, {read[-1].num_columns} columns"
    return read[-1] if read else None


def _check_days(found: Validation, name: str, lacking: Sequence[str], table: SourceTable) -> None:
    may_lack = isinstance(table, BehaviorTable) and table.allow_empty_days
    if not lacking or may_lack:
        return
    shown = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
    remedy = "load those days, or change calendar"
    if isinstance(table, BehaviorTable):
        remedy += ", or set tables.behavior.allow_empty_days if nothing happened on them"
    found.faults.append(Fault(f"table {name}", "every day of the calendar", f"nothing for {shown}", remedy))


def _scan(found: Validation, config: PipelineConfig, scan: LogScan, days: Sequence[str]) -> None:
    """Reads the log once; what is wrong with its files and columns is raised, with its rows collected."""
    table = config.tables.behavior
    types: CsvTypes | None = None
    for plans in _parts(table, days):
        types = types or csv_types(table, plans)
        for block in _blocks(plans):
            types.observe(block)
            scan.observe(block)
    if types is not None:
        for name, ids in scan.ids.items():
            if kinds := types.candidates.get(name):
                scan.ids[name] = ids.cast(kinds[0])
    found.faults.extend(scan.faults(config.events))
    if scan.days:
        _check_days(found, "behavior_table", [day for day in days if day not in scan.days], table)
        outside = scan.rows - sum(scan.days[day] for day in days if day in scan.days)
        told = f"{scan.rows:,} rows from {min(scan.days)} to {max(scan.days)}"
        found.figures["behavior_table"] = f"{told}, {outside:,} of them outside the calendar" if outside else told
        tally = ", ".join(f"{name} {count:,}" for name, count in scan.events.most_common())
        found.figures["events"] = tally


def _parts(table: BehaviorTable, days: Sequence[str]) -> Iterator[list[PlannedFile]]:
    """Yields the files of the log as they can be read together: all at once, or the days of the calendar one by one."""
    folder = open_folder(table, "behavior_table")
    if table.layout is not Layout.DS_FOLDERS:
        yield plan_files(table, list_files(folder))
        return
    there = day_folders(folder)
    for day in days:
        if day in there:
            yield plan_files(table, list_files(folder, there[day][0]))


def _blocks(plans: Sequence[PlannedFile]) -> Iterator[pa.Table]:
    for plan in plans:
        for raw in plan.file.blocks(list(dict.fromkeys(plan.columns.values()))):
            yield plan.block(raw)


def _check_ids(found: Validation, entities: Mapping[str, pa.Table | None], scan: LogScan) -> None:
    """Ids of the log and of the entity tables must be of one type, and some of them the same."""
    for side, key in (("user", col.USER_ID), ("item", col.ITEM_ID)):
        table, acting = entities[side], scan.ids.get(key)
        if table is None or acting is None or not len(acting):
            continue
        listed = table.column(key).combine_chunks()
        where = f"tables behavior_table and {side}_table, column {key}"
        if listed.type != acting.type:
            got = f"{acting.type} and {listed.type}"
            found.faults.append(Fault(where, "one type of id", got, "store the ids alike in both sources"))
            continue
        known = pc.sum(pc.is_in(acting, value_set=listed)).as_py() or 0
        if not known:
            got = f"none of {len(acting):,} ids of the log, such as {acting[0].as_py()!r}, in {side}_table, such as {listed[0].as_py()!r}"
            remedy = f"correct tables.{side}.columns.{key} or tables.behavior.columns.{key}"
            found.faults.append(Fault(where, "ids that both have", got, remedy))
        found.figures[f"{side}s of the log"] = f"{len(acting):,}, of which {known:,} have a row in {side}_table"


def _check_columns(
    found: Validation, config: PipelineConfig, entities: Mapping[str, pa.Table | None], spec: FgSpec | None
) -> None:
    """Columns that the configuration and the features name must be there."""
    raw = config.raw_features
    users, items = (None if table is None else set(table.column_names) for table in (entities["user"], entities["item"]))
    wanted = [("item", items, "raw_features.preference_columns", raw.preference_columns)]
    wanted += [("item", items, "raw_features.history_columns", raw.history_columns)]
    cut = [segment.user_column for segment in config.evaluation.segments if segment.kind is SegmentKind.USER_COLUMN]
    wanted += [("user", users, "evaluation.segments", cut)]
    for side, there, key, names in wanted:
        for name in names:
            if there is not None and name not in there:
                expected = f"a column of {side}_table: {', '.join(sorted(there))}"
                found.faults.append(Fault(f"key {key}", expected, repr(name), "correct its spelling, or remove it"))
    if spec is None:
        return
    plan = FeaturePlan.from_config(config)
    columns = {
        "context": _SAMPLE | set(config.tables.behavior.context_columns),
        SEQUENCE: _HISTORY | set(raw.history_columns),
    }
    if users is not None:
        columns["user"] = users | set(plan.generated(col.USER_ID))
    if items is not None:
        columns["item"] = items | set(plan.generated(col.ITEM_ID))
    found.faults.extend(missing_inputs(spec, columns))
    found.trying(lambda: check_names([*spec.features, *spec.sequence_features], config.statistics, config.features.exclude))
