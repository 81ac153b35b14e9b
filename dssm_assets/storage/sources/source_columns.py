"""Applies and checks the configured column mapping, and gives all files of a source one schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import is_text
from dssm_assets.core.columns import EVENT, ITEM_ID, REQUEST_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, FileFormat, Layout, SourceTable
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import NO_IDS, decode_column, with_decimal_point
from dssm_assets.core.sources.event_time import join_clock
from dssm_assets.storage.sources.json_lines import merge_kinds
from dssm_assets.storage.sources.source import DayBounds, SourcePiece
from dssm_assets.storage.sources.source_files import SourceFile

DS: Final = "ds"
"""The partition column. It is never an attribute of a user or item."""

_SHOWN: Final = 100
"""An error names so many columns."""
_INTEGER: Final = r"^(?:0|-?[1-9]\d{0,17})$"
_WHOLE: Final = r"^(?:0|-?[1-9]\d{0,17})(?:\.0+)?$"
"""Matches whole numbers, also ids such as 17850.0: a dataframe with missing ids turns the others into floats."""
_NUMBER: Final = r"^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$"
_COMMA_NUMBER: Final = r"^-?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?$"
"""Matches no leading zeros, because these occur in zip codes and article numbers."""


@dataclass(frozen=True)
class PlannedPiece:
    """A piece of a source, its wanted columns (our name -> source name), and the common schema in our names.

    If `clock` is set, it names two columns, the date and the time of day, and `event_time` joins them. With `needs_all`, rows
    without a user, an item or a time are left out. `rows` counts the rows read and the rows left out.
    """

    piece: SourcePiece
    columns: dict[str, str]
    schema: pa.Schema
    clock: tuple[str, str] | None = None
    needs_all: bool = False
    rows: Counter[str] = field(default_factory=Counter, compare=False)

    def blocks(self, days: DayBounds | None = None) -> Iterator[pa.Table]:
        """Yields the rows in blocks, with our names and the common types. For `days` see `SourcePiece.blocks`."""
        names = dict.fromkeys([*self.columns.values(), *(self.clock or ())])
        yield from map(self._to_common, self.piece.blocks([*names], days))

    def _to_common(self, raw: pa.Table) -> pa.Table:
        arrays = {}
        for wanted in self.schema:
            if wanted.name == EVENT_TIME and self.clock is not None:
                arrays[wanted.name] = join_clock(*(raw.column(name) for name in self.clock))
            elif wanted.name in self.columns:
                arrays[wanted.name] = decode_column(raw.column(self.columns[wanted.name])).cast(wanted.type)
            else:
                arrays[wanted.name] = pa.nulls(raw.num_rows, wanted.type)
        rows = pa.table(arrays, schema=self.schema)
        if self.needs_all:
            for name in (USER_ID, ITEM_ID, EVENT_TIME):
                rows = rows.filter(has_value(rows.column(name)))
            self.rows.update(read=raw.num_rows, left_out=raw.num_rows - rows.num_rows)
        return rows


def plan_pieces(pieces: Sequence[SourcePiece]) -> list[PlannedPiece]:
    """Plans to read all pieces into one common schema: mapped columns first, then the others in the order of the pieces.

    A file may lack columns that the configuration does not name (they become null), and may have narrower number types. Every JSON
    file gets the columns of all JSON files.

    Raises:
        SchemaError: a configured column is missing, a name is repeated, or a column has incompatible types. Lists all faults.
    """
    source, json = pieces[0].source, None
    table = source.table
    if table.format is FileFormat.JSON:
        files = [piece for piece in pieces if isinstance(piece, SourceFile)]
        json = merge_kinds([file.json_kinds() for file in files], files[0].where)
        pieces = [replace(file, json=json) for file in files]
    if json is not None and not json.keys and isinstance(table, BehaviorTable):
        empty = dict.fromkeys([*_needed(table), *table.columns, *(table.keep or [])])
        return [PlannedPiece(piece, {}, pa.schema([(name, pa.string()) for name in empty])) for piece in pieces]
    faults: list[Fault] = []
    chosen: list[dict[str, str]] = []
    merged: dict[str, pa.DataType] = {}
    types: dict[str, dict[str, SourcePiece]] = {}
    for piece in pieces if json is None else pieces[:1]:
        where = piece.where if json is None or len(pieces) == 1 else f"table {source.name}, all of {len(pieces)} files"
        schema = piece.schema() if json is None else json.schema
        columns, wrong = _choose_columns(table, schema.names, source.key, where)
        faults.extend(wrong)
        chosen.append(columns)
        for ours, column in columns.items():
            kind = decode_column(pa.nulls(0, schema.field(column).type)).type
            types.setdefault(ours, {}).setdefault(str(kind), piece)
            merged[ours] = _merge(merged.get(ours, kind), kind)
    for ours in [name for name, kind in merged.items() if kind is None]:
        got = ", ".join(f"{type_name} in {piece.path}" for type_name, piece in sorted(types[ours].items()))
        where, remedy = f"table {source.name}, column {ours}", "write the files again with one type"
        faults.append(Fault(where, "compatible types in all files", got, remedy))
    SchemaError.raise_if(faults)
    merged |= {name: pa.null() for name in _may_lack(table) if name not in merged}
    clock = table.clock_column if isinstance(table, BehaviorTable) else None
    if clock is not None:
        merged[EVENT_TIME] = pa.string()
    common = pa.schema(list(merged.items()))
    needs_all = isinstance(table, BehaviorTable) and table.incomplete_rows is not None
    return [
        PlannedPiece(piece, columns, common, None if clock is None else (columns[EVENT_TIME], clock), needs_all)
        for piece, columns in zip(pieces, chosen if json is None else chosen * len(pieces), strict=True)
    ]


def has_value(ids: Any) -> Any:
    """Marks present ids or times: False for null, NaN and texts that mean "missing"."""
    is_there = pc.invert(pc.is_null(ids, nan_is_null=True))
    return pc.and_(is_there, pc.invert(pc.is_in(ids, value_set=pa.array(["", *NO_IDS])))) if is_text(ids.type) else is_there


def csv_types(plans: Sequence[PlannedPiece]) -> CsvTypes:
    """Returns the type inference for csv files: of behavior only for the ids, of users and items for all columns."""
    table = plans[0].piece.source.table
    if table.format is not FileFormat.CSV:
        return CsvTypes([], [])
    names = plans[0].schema.names
    ids = [name for name in (USER_ID, ITEM_ID) if name in names]
    attributes = [] if isinstance(table, BehaviorTable) else [name for name in names if name not in {USER_ID, ITEM_ID}]
    return CsvTypes(ids, attributes, table.decimal_mark)


class CsvTypes:
    """Infers the types of csv columns from all rows: int64, else float64, else text. Ids are never float64: 7.0 becomes 7.

    "007" stays text, because a number would lose the zeros.
    """

    def __init__(self, ids: Sequence[str], attributes: Sequence[str], decimal_mark: str | None = None) -> None:
        self.ids = set(ids)
        self.candidates = {name: [pa.int64()] for name in ids} | {name: [pa.int64(), pa.float64()] for name in attributes}
        self.has_value: set[str] = set()
        self.decimal_mark = decimal_mark

    def observe(self, table: pa.Table) -> pa.Table:
        """Excludes types that do not fit these rows. Returns the rows."""
        for name, kinds in self.candidates.items():
            column = table.column(name)
            if column.null_count < len(column):
                self.has_value.add(name)
            integer = _WHOLE if name in self.ids else _INTEGER
            pattern = {pa.int64(): integer, pa.float64(): _NUMBER if self.decimal_mark is None else _COMMA_NUMBER}
            self.candidates[name] = [kind for kind in kinds if _all_match(column, pattern[kind])]
        return table

    def apply(self, table: pa.Table) -> pa.Table:
        """Converts a table to the inferred types. A column without any value stays text."""
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for name, kinds in self.candidates.items():
            if kinds and name in self.has_value:
                column = columns[name]
                if kinds[0] == pa.float64() and self.decimal_mark is not None:
                    column = with_decimal_point(column)
                columns[name] = cast_text(column, kinds[0])
        return pa.table(columns) if columns else table


def cast_text(column: Any, kind: pa.DataType) -> Any:
    """Converts texts to numbers. Whole numbers may end in .0."""
    if kind == pa.int64():
        column = pc.replace_substring_regex(column, r"\.0+$", "")
    return column.cast(kind)


def _choose_columns(table: SourceTable, names: Sequence[str], key: str, where: str) -> tuple[dict[str, str], list[Fault]]:
    """Returns our name -> source name for the wanted columns of a file, and a fault for each column that cannot be read."""
    named = dict(table.columns) | {name: name for name in _needed(table) if name not in table.columns}
    if isinstance(table, BehaviorTable) and REQUEST_ID in names:
        named.setdefault(REQUEST_ID, REQUEST_ID)
    rest = _kept_columns(table, names, set(named.values()))
    got, present = f"columns {', '.join(names[:_SHOWN]) or 'none'}{' ...' * (len(names) > _SHOWN)}", set(names)
    missing = [
        (f"{source} (our {ours})", f"add it to the source, or correct {key}.columns.{ours} or {key}.keep")
        for ours, source in [*named.items(), *zip(rest, rest, strict=True)]
        if source not in present and ours not in _may_lack(table)
    ]
    if isinstance(table, BehaviorTable) and table.clock_column is not None and table.clock_column not in names:
        missing.append((f"{table.clock_column} (the time of day)", f"correct {key}.clock_column"))
    faults = [Fault(f"{where}, column {column}", "the column to exist", got, remedy) for column, remedy in missing]
    for name in [name for name in rest if name in named]:
        remedy = f"list the columns to keep in {key}.keep, without {name}"
        got = f"{named[name]} mapped to it and a column of that name"
        faults.append(Fault(f"{where}, column {name}", "one source column for each of our columns", got, remedy))
    chosen = named | {name: name for name in rest if name not in named}
    return {ours: source for ours, source in chosen.items() if source in present}, faults


def _may_lack(table: SourceTable) -> list[str]:
    """Returns our columns that a day may lack. In day folders of JSON lines, these are the value and context columns."""
    if isinstance(table, BehaviorTable) and table.format is FileFormat.JSON and table.layout is Layout.DS_FOLDERS:
        return [*table.value_columns, *table.context_columns]
    return []


def _needed(table: SourceTable) -> list[str]:
    if not isinstance(table, BehaviorTable):
        return [EVENT_TIME] if table.layout is Layout.TIME_COLUMN else []
    event = [] if table.constant_event else [EVENT]
    return [USER_ID, ITEM_ID, *event, EVENT_TIME, *table.value_columns, *table.context_columns]


def _kept_columns(table: SourceTable, names: Sequence[str], used: set[str]) -> list[str]:
    if table.keep is not None:
        return [name for name in table.keep if name not in used]
    if isinstance(table, BehaviorTable):
        return []
    return [name for name in names if name not in used and name != DS]


def _merge(left: Any, right: pa.DataType) -> Any:
    """Returns the narrowest common type, None if there is none."""
    if left is None:
        return None
    try:
        pair = [pa.schema([("x", left)]), pa.schema([("x", right)])]
        return pa.unify_schemas(pair, promote_options="permissive").field("x").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None


def _all_match(column: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())
