"""Checks a configuration against its data before any run, and lists all faults at once.

Belongs here: the order of the checks and what they read. Does not belong here: the rules, which are defined with their subjects
(`core/config/pipeline.py`, `core/sources`, `core/features`).

After a failed check the others run as far as possible. They read the user and item tables of the calendar's first and last day,
and all configured columns of the log, in blocks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.config.evaluation import SegmentKind
from dssm_assets.core.config.pipeline import BehaviorTable, Layout, PipelineConfig, SourceTable
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.baselines.suite import check_extras
from dssm_assets.core.evaluation.segments import label_column
from dssm_assets.core.features.expressions import SEQUENCE
from dssm_assets.core.features.generator import missing_inputs
from dssm_assets.core.features.spec import FgSpec, parse_fg
from dssm_assets.core.features_raw.all_features import check_generated_names
from dssm_assets.core.features_raw.behavior import check_log_names
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS, refuse_collisions
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, EVENT_TIME
from dssm_assets.core.sources.convert import is_text
from dssm_assets.core.sources.normalise import Entities, convert_times, normalise_items, normalise_users
from dssm_assets.extras.starter.log_habits import WarmPairs, select_positive
from dssm_assets.extras.starter.log_table import LogTable
from dssm_assets.extras.starter.starter_inputs import MAX_LOOK_AHEAD
from dssm_assets.steps.tower_checks import check_towers
from dssm_assets.steps.workspace import days_between
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source_columns import CsvTypes, PlannedFile, cast_text, csv_types, plan_files
from dssm_assets.storage.sources.source_files import day_folders, list_files, open_folder

SHOWN = 5
_HISTORY = {col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS}
_SAMPLE = {col.REQUEST_ID, col.USER_ID, col.ITEM_ID, col.EVENT, col.EVENT_TIME_MS, col.HOUR, col.WEEKDAY}

_SEGMENT_ROWS: Final = 100_000


@dataclass
class Validation:
    """The result: faults, and figures about the data."""

    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def run_check(self, check: Callable[[], object]) -> None:
        """Runs a check and collects the faults that it raises."""
        try:
            check()
        except InputError as error:
            self.faults.extend(error.faults)


def validate(loaded: LoadedConfig, today: dt.date) -> Validation:
    """Returns all mismatches between a configuration and its data.

    Args:
        loaded: the configuration; its feature definitions may be unchecked.
        today: an open calendar ends on the day before.
    """
    found = Validation()
    config = loaded.config
    last = config.calendar.end or today - dt.timedelta(days=1)
    days = days_between(config.calendar.start.isoformat(), last.isoformat())
    _check_calendar(found, config, days)
    found.run_check(
        lambda: PartitionStore(loaded.root, config.storage.options).find(BEHAVIOR_TABLE.name, config.calendar.start.isoformat())
    )
    found.run_check(lambda: check_extras(config.evaluation.extra_baselines))
    specs: list[FgSpec] = []
    found.run_check(lambda: specs.append(parse_fg(loaded.fg, read_file=loaded.read_fg_file)))
    entities = {side: _check_entities(found, config, side, days) for side in ("user", "item")}
    log = LogTable(config.tables.behavior, config.calendar.timezone)
    ids: dict[str, pa.Array] = {}
    found.run_check(lambda: ids.update(_check_log(found, config, log, days)))
    _check_look_ahead(found, config, entities, log)
    _check_evaluation_days(found, config, log, last)
    _check_ids(found, entities, ids)
    _check_columns(found, config, entities, specs[0] if specs else None)
    return found


def _check_calendar(found: Validation, config: PipelineConfig, days: Sequence[str]) -> None:
    span = config.evaluation.span_days
    needed = config.window.days + span
    if len(days) < needed:
        remedy = f"reduce window.days{' or evaluation.span_days' if span > 1 else ''}, or provide more days"
        expected = (
            f"at least {needed} days: a window of {config.window.days} and {'a day' if span == 1 else f'{span} days'} to score"
        )
        found.faults.append(Fault("key calendar", expected, f"{len(days)} days", remedy))
    else:
        found.figures["days"] = f"{days[0]} to {days[-1]}, the first evaluation day is {days[config.window.days]}"


def _check_entities(found: Validation, config: PipelineConfig, side: str, days: Sequence[str]) -> pa.Table | None:
    """Reads the first and the last day of the user or item table; returns the last one, None if neither can be read."""
    table: SourceTable | None = getattr(config.tables, side)
    name = f"{side}_table"
    if table is None:
        found.figures[name] = "none: the ids of the log"
        return None
    normalise: Callable[[pa.Table], Entities] = normalise_users if side == "user" else normalise_items
    read: list[pa.Table] = []

    def check() -> None:
        wanted = list(days)
        if table.layout is Layout.DS_FOLDERS:
            folders = day_folders(open_folder(table, name))
            _check_days(found, name, [day for day in days if day not in folders], table)
            wanted = [day for day in days if day in folders]
        ends = sorted({*wanted[:1], *wanted[-1:]})
        for _, raw in read_days(table, ends, name=name, timezone=config.calendar.timezone):
            timed = convert_times(raw, table, name=name, timezone=config.calendar.timezone)
            read.append(normalise(timed).table)

    found.run_check(check)
    if read:
        found.figures[name] = f"{read[-1].num_rows:,} rows, {read[-1].num_columns} columns"
    return read[-1] if read else None


def _check_days(found: Validation, name: str, missing: Sequence[str], table: SourceTable) -> None:
    may_be_empty = isinstance(table, BehaviorTable) and table.allow_empty_days
    if not missing or may_be_empty:
        return
    shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    remedy = "load those days, or change calendar"
    if isinstance(table, BehaviorTable):
        remedy += ", or set tables.behavior.allow_empty_days if nothing happened on them"
    found.faults.append(Fault(f"table {name}", "every day of the calendar", f"nothing for {shown}", remedy))


def _check_look_ahead(
    found: Validation, config: PipelineConfig, entities: Mapping[str, pa.Table | None], log: LogTable
) -> None:
    """Names the times of a snapshot that are later than the first events of their ids."""
    for side, key in (("user", col.USER_ID), ("item", col.ITEM_ID)):
        rows, table = entities[side], config.tables.user if side == "user" else config.tables.item
        if rows is None or table is None or table.layout is not Layout.SNAPSHOT:
            continue
        renamed = {theirs: ours for ours, theirs in table.columns.items()}
        for column in (renamed.get(name, name) for name in table.time_columns):
            later = log.later_frac(key, rows.column(key), rows.column(column)) if column in rows.column_names else 0.0
            if later > MAX_LOOK_AHEAD:
                found.figures[f"look-ahead in {side}_table, column {column}"] = (
                    f"of {later:.0%} of the {side}s it is later than their first event, so it tells what a day could not know: "
                    f"take it out of tables.{side}.time_columns and fg.json"
                )


def _check_log(found: Validation, config: PipelineConfig, log: LogTable, days: Sequence[str]) -> dict[str, pa.Array]:
    """Reads the log once; raises faults of its files and columns, collects faults of its rows, and returns its ids."""
    table = config.tables.behavior
    types: CsvTypes | None = None
    kinds: dict[str, pa.DataType] = {}
    seen: set[str] = set()
    for plans in _file_groups(table, days):
        types = types or csv_types(table, plans)
        seen.update(name for plan in plans for name in plan.columns)
        kinds |= {field.name: field.type for field in plans[0].schema}
        for block in (block for plan in plans for block in plan.blocks()):
            log.observe(types.observe(block))
    found.faults.extend(log.faults(config.events))
    for name in (*table.value_columns, *table.context_columns):
        if types is not None and name not in seen:  # days of JSON lines may lack it, but not all of them
            where, remedy = f"table behavior_table, column {name}", "correct tables.behavior, or take the column out of it"
            found.faults.append(Fault(where, "the column to exist on one of the days", "no day that has it", remedy))
    if by_day := log.count_days():
        _check_days(found, "behavior_table", [day for day in days if day not in by_day], table)
        outside = sum(count for day, count in by_day.items() if not days[0] <= day <= days[-1])
        rows = f"{log.rows:,} rows from {min(by_day)} to {max(by_day)}"
        found.figures["behavior_table"] = f"{rows}, {outside:,} of them outside the calendar" if outside else rows
        tally = ", ".join(f"{name} {count:,}" for name, count in log.count_events().most_common())
        found.figures["events"] = tally
    ids = {}
    for name in (col.USER_ID, col.ITEM_ID):
        is_integer = bool(types and types.candidates.get(name)) or not is_text(kinds.get(name, pa.string()))
        ids[name] = cast_text(log.distinct_ids(name), pa.int64()) if is_integer else log.distinct_ids(name)
    return ids


def _check_evaluation_days(found: Validation, config: PipelineConfig, log: LogTable, last: dt.date) -> None:
    """Says which days can be evaluated."""
    if not select_positive(log.db, config.events.positive):
        return
    pairs = WarmPairs.count(log.db)
    days = pairs.evaluation_days(config.window.days, config.calendar.start, last, span=config.evaluation.span_days)
    found.figures["evaluation days"] = days.sentence
    if days.calendar_days and not pairs.evaluation_days(config.window.days, config.calendar.start, last, 1).days:
        expected = f"a day with a user and an item that the {config.window.days} days before it know"
        remedy = "map user_id to ids that come back on other days, as those of orders, baskets and sessions do not, or change window.days"
        found.faults.append(Fault("table behavior_table, column user_id", expected, "no such day in the calendar", remedy))


def _file_groups(table: BehaviorTable, days: Sequence[str]) -> Iterator[list[PlannedFile]]:
    """Yields groups of files with a common schema: all files at once, or one group per day folder of the calendar."""
    folder = open_folder(table, "behavior_table")
    if table.layout is not Layout.DS_FOLDERS:
        yield plan_files(table, list_files(folder))
        return
    folders = day_folders(folder)
    for day in days:
        if day in folders:
            yield plan_files(table, list_files(folder, folders[day][0]))


def _check_ids(found: Validation, entities: Mapping[str, pa.Table | None], ids: Mapping[str, pa.Array]) -> None:
    """Checks that ids of the log and of the entity tables have one type and overlap."""
    for side, key in (("user", col.USER_ID), ("item", col.ITEM_ID)):
        table, log_ids = entities[side], ids.get(key)
        if table is None or log_ids is None or not len(log_ids):
            continue
        table_ids = table.column(key).combine_chunks()
        where = f"tables behavior_table and {side}_table, column {key}"
        if table_ids.type != log_ids.type:
            got = f"{log_ids.type} and {table_ids.type}"
            found.faults.append(Fault(where, "one type of id", got, "store the ids with one type in both sources"))
            continue
        known = pc.sum(pc.is_in(log_ids, value_set=table_ids)).as_py() or 0
        if not known:
            got = f"none of {len(log_ids):,} ids of the log, such as {log_ids[0].as_py()!r}, in {side}_table, such as {table_ids[0].as_py()!r}"
            remedy = f"correct tables.{side}.columns.{key} or tables.behavior.columns.{key}"
            found.faults.append(Fault(where, "ids that occur in both", got, remedy))
        found.figures[f"{side}s of the log"] = f"{len(log_ids):,}, {known:,} of them with a row in {side}_table"


def _column_names(config: PipelineConfig, side: str, table: pa.Table | None) -> set[str] | None:
    """Returns the columns of the user or item table, the id alone without such a table; None if it cannot be read."""
    if getattr(config.tables, side) is None:
        return {f"{side}_id"}
    return None if table is None else set(table.column_names)


def _check_segments(found: Validation, config: PipelineConfig, users: pa.Table | None) -> None:
    """Checks that values of user_table can be the labels that the segments make of them, on its first rows."""
    if users is None:
        return
    first = users.slice(0, _SEGMENT_ROWS)
    ids = first.column(col.USER_ID)
    for segment in config.evaluation.segments:
        if segment.kind is SegmentKind.USER_COLUMN and segment.user_column in users.column_names:
            column = first.column(segment.user_column)
            found.run_check(partial(label_column, ids.combine_chunks(), ids, column, segment))


def _log_columns(config: PipelineConfig) -> list[str]:
    """Returns the columns of behavior_table, as far as the configuration names them."""
    log = config.tables.behavior
    named = [*log.columns, *log.value_columns, *log.context_columns, *(log.keep or ())]
    return sorted({name for name in named if name != EVENT_TIME} | {column.name for column in BEHAVIOR_TABLE.columns})


def _check_columns(
    found: Validation, config: PipelineConfig, entities: Mapping[str, pa.Table | None], spec: FgSpec | None
) -> None:
    """Checks that the columns named by the configuration and the features exist."""
    raw = config.raw_features
    users, items = (_column_names(config, side, entities[side]) for side in ("user", "item"))
    wanted = [("item", items, "raw_features.preference_columns", raw.preference_columns)]
    wanted += [("item", items, "raw_features.history_columns", raw.history_columns)]
    wanted += [("item", items, "serving.filters", config.serving.filters)]
    segment_columns = [segment.user_column for segment in config.evaluation.segments if segment.kind is SegmentKind.USER_COLUMN]
    wanted += [("user", users, "evaluation.segments", segment_columns)]
    for side, present, key, names in wanted:
        for name in names:
            if present is not None and name not in present:
                expected = f"a column of {side}_table: {', '.join(sorted(present))}"
                found.faults.append(Fault(f"key {key}", expected, repr(name), "correct its spelling, or remove it"))
    plan = FeaturePlan.from_config(config, config.calendar.start.isoformat())
    found.run_check(lambda: check_log_names(_log_columns(config), [*raw.preference_columns, *raw.history_columns]))
    for entity, present in ((col.USER_ID, users), (col.ITEM_ID, items)):
        if present is not None:
            found.run_check(partial(check_generated_names, entity, sorted(present - {entity}), plan))
    _check_segments(found, config, entities["user"])
    if spec is None:
        return
    for side, own in NON_FEATURE_COLUMNS.items():
        names = [name for feature in spec.features_of_side(side) for name in (feature.name, feature.weights_name) if name]
        sources = {"columns of its own": [*own, *(config.tables.behavior.context_columns if side == "context" else ())]}
        found.run_check(partial(refuse_collisions, f"features of side {side}", sources | {"features": names}))
    columns = {
        "context": _SAMPLE | set(config.tables.behavior.context_columns),
        SEQUENCE: _HISTORY | set(raw.history_columns),
    }
    if users is not None:
        columns["user"] = users | set(plan.generated(col.USER_ID))
    if items is not None:
        columns["item"] = items | set(plan.generated(col.ITEM_ID))
    found.faults.extend(missing_inputs(spec, columns))
    found.run_check(lambda: check_towers(spec, config))
