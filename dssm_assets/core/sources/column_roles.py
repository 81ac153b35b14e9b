"""What a column of an unknown table holds: its kind, how many values, how often none, what they look like.

Belongs here: looking at values, block by block. Does not belong here: what a column is then taken for (`column_roles.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.sources.convert import flat, is_text
from dssm_assets.core.sources.event_time import SECONDS_BELOW, to_event_time_ms

DISTINCT_CAP: Final = 200_000
"""Distinct values that are told apart at most; a column with more has "many"."""
_EXAMPLES: Final = 3


class ValueKind(StrEnum):
    """What the values of a column are."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    MOMENT = "moment"
    OTHER = "other"
    """Lists, structs, bytes."""


@dataclass(frozen=True)
class ColumnProfile:
    """One column of a table.

    Attributes:
        name: in the source.
        kind: what its values are.
        rows: rows of the table.
        missing: rows without a value.
        values: its distinct values, None where there are more than DISTINCT_CAP.
        low: its smallest number, None for other kinds and without values.
        high: its largest number.
    """

    name: str
    kind: ValueKind
    rows: int
    missing: int
    values: pa.Array | None
    low: float | None = None
    high: float | None = None

    @property
    def distinct(self) -> int:
        """Returns the number of distinct values, DISTINCT_CAP + 1 for more than that."""
        return DISTINCT_CAP + 1 if self.values is None else len(self.values)

    @property
    def is_key(self) -> bool:
        """Tells whether every row has a value and, as far as they were told apart, one of its own."""
        unique = self.values is None or len(self.values) == self.rows
        return bool(self.rows) and not self.missing and unique and self.kind in (ValueKind.INTEGER, ValueKind.TEXT)

    @property
    def summary(self) -> str:
        """Returns the column in a few words, for a comment."""
        many = f"more than {DISTINCT_CAP:,}" if self.values is None else f"{len(self.values):,}"
        parts = [str(self.kind), f"{many} distinct"]
        if self.rows and self.missing:
            parts.append(f"{100 * self.missing / self.rows:.0f}% missing")
        if self.values is not None and len(self.values):
            shown = (str(value).replace("\n", " ")[:24] for value in self.values.slice(0, _EXAMPLES).to_pylist())
            parts.append("e.g. " + ", ".join(shown))
        return ", ".join(parts)


class ProfileBuilder:
    """Builds the profile of one column from its blocks, all of one type."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind = ValueKind.OTHER
        self._rows = 0
        self._missing = 0
        self._values: pa.Array | None = None
        self._is_capped = False
        self._low: float | None = None
        self._high: float | None = None

    def observe(self, column: Any) -> None:
        """Takes a block of the column into account."""
        values = flat(column)
        self._kind = kind_of(values.type)
        self._rows += len(values)
        if self._kind is ValueKind.OTHER:
            self._is_capped = True
            self._missing += values.null_count
            return
        present = values.drop_null()
        if pat.is_floating(present.type):
            present = present.filter(pc.invert(pc.is_nan(present)))
        elif is_text(present.type):
            present = present.filter(pc.not_equal(present, ""))
        self._missing += len(values) - len(present)
        self._see_range(present)
        if not self._is_capped:
            fresh = pc.unique(present)
            self._values = fresh if self._values is None else pc.unique(pa.concat_arrays([self._values, fresh]))
            self._is_capped = len(self._values) > DISTINCT_CAP

    def _see_range(self, present: pa.Array) -> None:
        if self._kind not in (ValueKind.INTEGER, ValueKind.NUMBER) or not len(present):
            return
        ends = pc.min_max(present).as_py()
        self._low = float(ends["min"]) if self._low is None else min(self._low, float(ends["min"]))
        self._high = float(ends["max"]) if self._high is None else max(self._high, float(ends["max"]))

    def profile(self) -> ColumnProfile:
        """Returns what was seen."""
        values = None if self._is_capped else self._values
        return ColumnProfile(self._name, self._kind, self._rows, self._missing, values, self._low, self._high)


def kind_of(kind: pa.DataType) -> ValueKind:
    """Returns the kind of a type's values."""
    if pat.is_boolean(kind):
        return ValueKind.BOOLEAN
    if pat.is_integer(kind):
        return ValueKind.INTEGER
    if pat.is_floating(kind) or pat.is_decimal(kind):
        return ValueKind.NUMBER
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return ValueKind.MOMENT
    return ValueKind.TEXT if is_text(kind) or pat.is_null(kind) else ValueKind.OTHER


_USER: Final = re.compile(r"user|uid|member|customer|household|visitor|account|buyer|client|device", re.IGNORECASE)
_ITEM: Final = re.compile(r"item|iid|sku|product|goods|article|movie|video|song|track|book|content|doc|stock", re.IGNORECASE)
_TIME: Final = re.compile(r"time|date|^ts$|_ts$|_at$|moment|clock", re.IGNORECASE)
_EVENT: Final = re.compile(r"event|action|behaviou?r|bhv|^type$|activity|operation", re.IGNORECASE)
_MAX_EVENTS: Final = 50
_EARLIEST_S: Final = 631_152_000
"""1990-01-01: smaller numbers are no moments in seconds."""
_LATEST_S: Final = 4_102_444_800
"""2100-01-01."""
_LEAST_OVERLAP: Final = 0.05


@dataclass(frozen=True)
class Roles:
    """The columns of the three tables, by their names in the sources.

    Attributes:
        user_key: the user table's key.
        item_key: the item table's key.
        user_id: who acted, in the log.
        item_id: on what.
        event_time: when.
        event: what was done; None where every row is of one kind.
    """

    user_key: str
    item_key: str
    user_id: str
    item_id: str
    event_time: str
    event: str | None


Profiles = Sequence[ColumnProfile]


def find_roles(users: Profiles, items: Profiles, log: Profiles, said: Mapping[str, str]) -> Roles:
    """Returns the roles of columns.

    Args:
        users: the user table's columns.
        items: the item table's columns.
        log: the log's columns.
        said: role of the log (user_id, item_id, event_time, event) -> column, where a person said so.

    Raises:
        ConfigError: naming every role that no column fits, and every column said that does not exist.
    """
    names = {column.name for column in log}
    faults = [
        Fault(
            f"--{role.replace('_', '-')}",
            f"a column of the log: {', '.join(sorted(names))}",
            repr(name),
            "correct its spelling",
        )
        for role, name in said.items()
        if name not in names
    ]
    user = _pair(users, log, _USER, "user", said.get("user_id"), faults)
    taken = {user[1]} if user else set()
    item = _pair(items, [column for column in log if column.name not in taken], _ITEM, "item", said.get("item_id"), faults)
    taken |= {item[1]} if item else set()
    rest = [column for column in log if column.name not in taken]
    moment = said.get("event_time") or _moment(rest, faults)
    event = said.get("event") or _event([column for column in rest if column.name != moment])
    if faults or user is None or item is None or moment is None:
        raise ConfigError(faults)
    return Roles(user[0], item[0], user[1], item[1], moment, event)


def _pair(
    entities: Profiles, log: Profiles, pattern: re.Pattern[str], side: str, said: str | None, faults: list[Fault]
) -> tuple[str, str] | None:
    """Returns (the entity table's key, the log's column of the same ids), the pair whose values and names fit best."""
    keys = [column for column in entities if column.is_key]
    if not keys:
        told = "; ".join(f"{column.name}: {column.summary}" for column in entities) or "no columns"
        remedy = f"keep one row per {side} and give it an id"
        faults.append(Fault(f"{side} table", "a column of ids: integers or text, all different, none missing", told, remedy))
        return None
    acting = [column for column in log if (column.name == said if said else column.kind in (ValueKind.INTEGER, ValueKind.TEXT))]
    scored = []
    for key in keys:
        for column in acting:
            overlap = _overlap(key, column)
            if overlap >= _LEAST_OVERLAP or said:
                is_named = bool(pattern.search(column.name)) + bool(pattern.search(key.name)) + (key.name == column.name)
                scored.append((is_named, overlap, key.name, column.name))
    if not scored:
        got = f"no column whose values are found in {', '.join(key.name for key in keys)}"
        remedy = f"say which it is with --{side}-id"
        faults.append(Fault(f"log, the column of {side} ids", f"ids of the {side} table", got, remedy))
        return None
    _, _, key_name, column_name = max(scored, key=lambda entry: entry[:2])
    return key_name, column_name


def _overlap(key: ColumnProfile, column: ColumnProfile) -> float:
    """Returns the share of a log column's values that the key has; 1 where there are too many to be told apart."""
    if (key.kind is ValueKind.INTEGER) != (column.kind is ValueKind.INTEGER):
        return 0.0
    if key.values is None or column.values is None:
        return 1.0 if key.values is None and column.values is None else _LEAST_OVERLAP
    if not len(column.values):
        return 0.0
    common = pa.int64() if key.kind is ValueKind.INTEGER else pa.string()
    return float(pc.mean(pc.is_in(column.values.cast(common), value_set=key.values.cast(common))).as_py())


def _moment(columns: Profiles, faults: list[Fault]) -> str | None:
    fitting = [column for column in columns if _reads_as_moment(column)]
    if not fitting:
        told = "; ".join(f"{column.name}: {column.summary}" for column in columns) or "no other columns"
        expected = "timestamps, ISO 8601 text, or seconds or milliseconds since 1970"
        faults.append(Fault("log, the column of moments", expected, told, "say which it is with --event-time"))
        return None
    return max(fitting, key=lambda column: (bool(_TIME.search(column.name)), column.distinct)).name


def _reads_as_moment(column: ColumnProfile) -> bool:
    if column.kind is ValueKind.MOMENT:
        return True
    if column.kind is ValueKind.INTEGER and column.low is not None and column.high is not None:
        scale = 1 if column.high < SECONDS_BELOW else 1000
        return column.low >= _EARLIEST_S * scale and column.high <= _LATEST_S * scale
    if column.kind is not ValueKind.TEXT or column.values is None or not len(column.values):
        return column.kind is ValueKind.TEXT and column.values is None and bool(_TIME.search(column.name))
    try:
        to_event_time_ms(column.values.slice(0, 100), unit="auto", timezone="UTC", where="")
    except SchemaError:
        return False
    return not bool(pc.all(pc.match_substring_regex(column.values.slice(0, 100), r"^\d{1,8}$")).as_py())


def _event(columns: Profiles) -> str | None:
    """Returns the first column that is named as one of events and has few values, none of them missing."""
    kinds = (ValueKind.TEXT, ValueKind.INTEGER)
    named = [column for column in columns if column.kind in kinds and _EVENT.search(column.name)]
    return next((column.name for column in named if 0 < column.distinct <= _MAX_EVENTS and not column.missing), None)
