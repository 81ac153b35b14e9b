"""Checks a configuration against its data before any run, and lists all faults at once.

If a check fails, the others still run as far as possible. The checks read the user and item tables of the calendar's first
and last day, and all configured columns of the log, in blocks.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import is_text
from dssm_assets.core.config.evaluation import SegmentKind
from dssm_assets.core.config.pipeline import BehaviorTable, Layout, SourceTable
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.baselines.registry import check_extras
from dssm_assets.core.evaluation.segments import label_column
from dssm_assets.core.features.expressions import SEQUENCE
from dssm_assets.core.features.spec import FgSpec, parse_fg
from dssm_assets.core.features_raw.all_features import check_generated_names
from dssm_assets.core.features_raw.behavior import check_log_names
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS, refuse_collisions
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, EVENT_TIME, ITEM_TABLE, USER_TABLE
from dssm_assets.core.sources.normalise import convert_times, normalise_entities
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.extras.starter.log_table import LogTable, PairDays, drop_tail, last_day, plan_log, select_positive
from dssm_assets.extras.starter.starter_config import MAX_LOOK_AHEAD
from dssm_assets.steps.feature_config import check_towers
from dssm_assets.steps.workspace import days_between
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.reader import log_rows, read_days
from dssm_assets.storage.sources.source_columns import CsvTypes, cast_text, csv_types
from dssm_assets.storage.sources.source_files import open_source

SHOWN: Final = 5
_HISTORY: Final = {col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS}
_SAMPLE: Final = {col.REQUEST_ID, col.USER_ID, col.ITEM_ID, col.EVENT, col.EVENT_TIME_MS, col.HOUR, col.WEEKDAY}
_KEYS: Final = {"user": col.USER_ID, "item": col.ITEM_ID}
_TABLES: Final = {
    "user": ("user_all_feature", "the user table"),
    "item": ("item_all_feature", "the item table"),
    "context": ("sample", "tables.behavior.context_columns"),
    SEQUENCE: ("user_history", "raw_features.history_columns"),
}
"""Side -> the table of its features, and the place to add a column to that table."""
_SEGMENT_ROWS: Final = 100_000

_PATH: Final = re.compile(r"\S*/[^,]*")
"""Matches the path of a file up to the next comma."""


@dataclass
class Validation:
    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def run_check(self, check: Callable[[], object]) -> None:
        try:
            check()
        except InputError as error:
            self.faults.extend(error.faults)

    def add(self, where: str, expected: str, got: str, remedy: str) -> None:
        self.faults.append(Fault(where, expected, got, remedy))


def validate(
    loaded: LoadedConfig, today: dt.date, log: Callable[[str], None] = lambda line: None, rows: int | None = None
) -> Validation:
    """Returns all mismatches between a configuration and its data. An open calendar ends on the day before `today`.

    Args:
        rows: number of rows of the log, for an ETA; None: unknown.
    """
    checks, config = _Checks(loaded, today), loaded.config
    checks.check_calendar()
    first = config.calendar.start.isoformat()
    checks.run_check(lambda: PartitionStore(loaded.root, config.storage.options).find(BEHAVIOR_TABLE.name, first))
    checks.run_check(lambda: check_extras(config.evaluation.extra_baselines))
    checks.run_check(all_rows)  # checks of plug-ins
    for side in _KEYS:
        checks.run_check(partial(checks.read_entities, side))
    checks.run_check(lambda: checks.read_log(log, rows))
    checks.check_evaluation_days()
    for side in _KEYS:
        checks.check_look_ahead(side)
        checks.check_ids(side)
    checks.check_columns()
    checks.run_check(checks.check_features)
    return Validation(checks.faults, checks.figures)


class _Checks(Validation):
    """The checks and the data they share: user and item tables that could be read, the log, and side -> ids of the log."""

    def __init__(self, loaded: LoadedConfig, today: dt.date) -> None:
        super().__init__()
        self.loaded, self.config = loaded, loaded.config
        calendar, self.today = self.config.calendar, today
        self.last = calendar.end or today - dt.timedelta(days=1)
        self.days = days_between(calendar.start.isoformat(), self.last.isoformat())
        self.log = LogTable(self.config.tables.behavior, calendar.timezone)
        self.entities: dict[str, pa.Table] = {}
        self.log_ids: dict[str, pa.Array] = {}
        self.plan = FeaturePlan.from_config(self.config, calendar.start.isoformat())

    def check_calendar(self) -> None:
        window, span, days = self.config.window.days, self.config.evaluation.span_days, self.days
        if len(days) < window + span:
            expected = f"at least {window + span} days: a window of {window}, and evaluation.span_days {span}"
            self.add("key calendar", expected, f"{len(days)} days", "reduce them, or provide more days")
        else:
            self.figures["days"] = f"{days[0]} to {days[-1]}, the first evaluation day is {days[window]}"

    def read_entities(self, side: str) -> None:
        """Reads the first and the last day of the user or item table."""
        table: SourceTable | None = getattr(self.config.tables, side)
        name, zone = f"{side}_table", self.config.calendar.timezone
        if table is None:
            self.figures[name] = "none: the ids of the log"
            return
        wanted, source = list(self.days), open_source(table, name)
        if table.layout is Layout.DS_FOLDERS:
            folders = source.days()
            self._check_days(name, [day for day in self.days if day not in folders], table)
            wanted = [day for day in self.days if day in folders]
        for _, raw in read_days(source, sorted({*wanted[:1], *wanted[-1:]}), timezone=zone):
            timed = convert_times(raw, table, name=name, timezone=zone)
            self.entities[side] = normalise_entities(timed, USER_TABLE if side == "user" else ITEM_TABLE).table
        if (rows := self.entities.get(side)) is not None:
            self.figures[name] = f"{rows.num_rows:,} rows, {rows.num_columns} columns"

    def _check_days(self, name: str, missing: Sequence[str], table: SourceTable) -> None:
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        remedy = "load those days, or change calendar"
        if isinstance(table, BehaviorTable):
            remedy += ", or set tables.behavior.allow_empty_days if nothing happened on them"
        if missing and not (isinstance(table, BehaviorTable) and table.allow_empty_days):
            self.add(f"table {name}", "every day of the calendar", f"nothing for {shown}", remedy)

    def read_log(self, log: Callable[[str], None], total: int | None) -> None:
        """Reads the log once. Raises faults of its files and columns, and collects faults of its rows."""
        table, rows = self.config.tables.behavior, self.log
        types: CsvTypes | None = None
        kinds: dict[str, pa.DataType] = {}
        seen: set[str] = set()
        for plans in plan_log(table, self.days):
            types = types or csv_types(plans)
            seen.update(name for plan in plans for name in plan.columns)
            kinds |= {field.name: field.type for field in plans[0].schema}
            for block in log_rows((block for plan in plans for block in plan.blocks()), log, "behavior_table", total):
                rows.observe(types.observe(block))
        self.faults.extend(rows.faults(self.config.events))
        for name in (*table.value_columns, *table.context_columns):
            if types is not None and name not in seen:  # days of JSON lines may lack it, but not all of them
                where, remedy = f"table behavior_table, column {name}", "correct tables.behavior, or take the column out of it"
                self.add(where, "the column to exist on one of the days", "no day that has it", remedy)
        by_day = rows.count_days()
        if by_day or not self.faults:  # a log without a row, or without a folder of a day
            self._check_days("behavior_table", [day for day in self.days if day not in by_day], table)
        if by_day:
            outside = sum(count for day, count in by_day.items() if not self.days[0] <= day <= self.days[-1])
            figure = f"{rows.rows:,} rows from {min(by_day)} to {max(by_day)}"
            self.figures["behavior_table"] = f"{figure}, {outside:,} of them outside the calendar" if outside else figure
            self.figures["events"] = ", ".join(f"{name} {count:,}" for name, count in rows.count_events().items())
        for side, key in _KEYS.items():
            is_integer = bool(types and types.candidates.get(key)) or not is_text(kinds.get(key, pa.string()))
            self.log_ids[side] = cast_text(rows.distinct_ids(key), pa.int64()) if is_integer else rows.distinct_ids(key)

    def check_evaluation_days(self) -> None:
        """Counts days as `init` does, so that both name the same days: without strays and a thin tail."""
        self.log.drop_strays(self.today)
        if not select_positive(self.log.db, self.config.events.positive, self.last):
            return
        drop_tail(self.log.db)
        last = last_day(self.log.db)
        pairs = PairDays.read(self.log.db).count_warm(self.config.evaluation.span_days)
        start, window = self.config.calendar.start, self.config.window.days
        days = pairs.evaluation_days(window, start, last, self.config.gate)
        self.figures["evaluation days"] = days.sentence
        if days.calendar_days and not pairs.evaluation_days(window, start, last, min_pairs=1).days:
            expected = f"a day with a user and an item that the {window} days before it know"
            remedy = "map user_id to ids that come back on other days, unlike orders and sessions, or change window.days"
            self.add("table behavior_table, column user_id", expected, "no such day in the calendar", remedy)

    def check_look_ahead(self, side: str) -> None:
        """Reports the time columns of a snapshot whose times are often later than their id's first event."""
        rows, table = self.entities.get(side), getattr(self.config.tables, side)
        if rows is None or table.layout is not Layout.SNAPSHOT:
            return
        renamed = {theirs: ours for ours, theirs in table.columns.items()}
        for column in filter(set(rows.column_names).__contains__, (renamed.get(name, name) for name in table.time_columns)):
            later = self.log.later_frac(_KEYS[side], rows.column(_KEYS[side]), rows.column(column))
            if later > MAX_LOOK_AHEAD:
                self.figures[f"look-ahead in {side}_table, column {column}"] = (
                    f"of {later:.0%} of the {side}s it is later than their first event, so it tells what a day could not know: "
                    f"take it out of tables.{side}.time_columns and fg.json"
                )

    def check_ids(self, side: str) -> None:
        """Checks that ids of the log and of the entity table have one type and overlap."""
        key, log_ids = _KEYS[side], self.log_ids.get(side)
        if side not in self.entities or log_ids is None or not len(log_ids):
            return
        ids = self.entities[side].column(key).combine_chunks()
        where = f"tables behavior_table and {side}_table, column {key}"
        if ids.type != log_ids.type:
            got = f"{log_ids.type} and {ids.type}"
            self.add(where, "one type of id", got, "store the ids with one type in both sources")
            return
        known = pc.sum(pc.is_in(log_ids, value_set=ids)).as_py() or 0
        if not known:
            got = f"none of {len(log_ids):,} ids of the log, such as {log_ids[0].as_py()!r}, in {side}_table, such as {ids[0].as_py()!r}"
            remedy = f"correct tables.{side}.columns.{key} or tables.behavior.columns.{key}"
            self.add(where, "ids that occur in both", got, remedy)
        self.figures[f"{side}s of the log"] = f"{len(log_ids):,}, {known:,} of them with a row in {side}_table"

    def _columns(self, side: str) -> set[str] | None:
        """Returns the columns of the user or item table (without such a table: only the id). None: the table cannot be read."""
        if getattr(self.config.tables, side) is None:
            return {_KEYS[side]}
        return set(self.entities[side].column_names) if side in self.entities else None

    def check_columns(self) -> None:
        """Checks that configured columns exist, that generated names are free, and that segments have valid values."""
        raw, config, log = self.config.raw_features, self.config, self.config.tables.behavior
        segments = [segment for segment in config.evaluation.segments if segment.kind is SegmentKind.USER_COLUMN]
        named: list[tuple[str, str, Iterable[str]]] = [
            ("item", "raw_features.preference_columns", raw.preference_columns),
            ("item", "raw_features.history_columns", raw.history_columns),
            ("item", "serving.filters", config.serving.filters),
            ("user", "evaluation.segments", [segment.user_column for segment in segments]),
        ]
        for side, key, names in named:
            if (present := self._columns(side)) is not None:
                expected = f"a column of {side}_table: {', '.join(sorted(present))}"
                for name in (name for name in names if name not in present):
                    self.add(f"key {key}", expected, repr(name), "correct its spelling, or remove it")
        of_log = {*log.columns, *log.value_columns, *log.context_columns, *(log.keep or ())} - {EVENT_TIME}
        of_log |= {column.name for column in BEHAVIOR_TABLE.columns}
        self.run_check(lambda: check_log_names(sorted(of_log), [*raw.preference_columns, *raw.history_columns]))
        for side, key in _KEYS.items():
            if (present := self._columns(side)) is not None:
                self.run_check(partial(check_generated_names, key, sorted(present - {key}), self.plan))
        if (users := self.entities.get("user")) is not None:
            first = users.slice(0, _SEGMENT_ROWS)
            ids = first.column(col.USER_ID)
            for segment in (segment for segment in segments if segment.user_column in users.column_names):
                column = first.column(segment.user_column)
                self.run_check(partial(label_column, ids.combine_chunks(), ids, column, segment))

    def check_features(self) -> None:
        """Checks the feature definitions and the columns that they read. Raises faults of the definitions, collects others."""
        spec = parse_fg(self.loaded.fg, read_file=self.loaded.read_fg_file)
        contexts = set(self.config.tables.behavior.context_columns)
        for side, own in NON_FEATURE_COLUMNS.items():
            names = [name for feature in spec.features_of_side(side) for name in (feature.name, feature.weights_name) if name]
            sources = {"columns of its own": [*own, *(contexts if side == "context" else ())], "features": names}
            self.run_check(partial(refuse_collisions, f"features of side {side}", sources))
        columns = {"context": _SAMPLE | contexts, SEQUENCE: _HISTORY | set(self.config.raw_features.history_columns)}
        for side, key in _KEYS.items():
            if (present := self._columns(side)) is not None:
                columns[side] = present | set(self.plan.generated(key))
        self.faults.extend(_find_missing_inputs(spec, columns))
        self.run_check(lambda: check_towers(spec, self.config))


def _find_missing_inputs(spec: FgSpec, columns: Mapping[str, Collection[str]]) -> list[Fault]:
    """Returns one fault per feature and input column that its table will not have.

    Args:
        columns: side (user, item, context, sequence) -> columns of the table that its features read. A side that is not
            given is not checked.
    """
    faults = []
    for feature in (*spec.features, *spec.sequence_features):
        side = SEQUENCE if feature.sequence is not None else feature.side.value
        table, source = _TABLES[side]
        for name in feature.inputs if side in columns else ():
            if name not in columns[side]:
                known = ", ".join(sorted(columns[side]))
                expected = f"a column of {table}: {known[:400]}{' ...' if len(known) > 400 else ''}"
                remedy = f"add it to {source}, or correct the expression"
                faults.append(Fault(f"fg.json, feature {feature.name}", expected, repr(name), remedy))
    return faults


def describe_validation(found: Validation, name: str) -> str:
    """Returns the figures of a validation and its numbered faults. Faults that differ only in the file are grouped."""
    lines = [f"  {what}: {figure}" for what, figure in found.figures.items()]
    if not found.faults:
        return "\n".join([*lines, f"{name} matches its data."])
    count = len(found.faults)
    lines.append(f"{name}: {count} fault{'s' if count > 1 else ''}")
    groups: dict[str, list[Fault]] = {}
    for fault in sorted(found.faults, key=lambda fault: fault.where):
        plain = Fault(_PATH.sub("", fault.where), fault.expected, fault.got, fault.remedy)
        groups.setdefault(str(plain), []).append(fault)
    for number, (fault, *others) in enumerate(groups.values(), start=1):
        more = f". The same in {len(others)} more files, the last one: {others[-1].where}." if others else ""
        lines.append(f"  {number}. {fault}{more}")
    return "\n".join(lines)
