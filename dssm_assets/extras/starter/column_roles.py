"""Profiles of the columns of an unknown table, and the roles (ids, timestamp, event) that they suggest.

Belongs here: profiling blocks, guessing roles. Does not belong here: reading the blocks (`extras/starter/table_survey.py`),
choosing features (`starter_config.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.sources.convert import COMMA_NUMBER, NO_IDS, decode_column, is_text
from dssm_assets.core.sources.event_time import SECONDS_BELOW, time_text_format, to_event_time_ms
from dssm_assets.core.sources.time_format import CLOCKS, KNOWN, find_time_formats, has_clock, reads_integers

DISTINCT_CAP: Final = 200_000
"""Distinct values are counted up to this number."""
_EXAMPLES: Final = 3


class ValueKind(StrEnum):
    """The kind of a column's values."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    LIST = "list"
    """Lists of texts or integers; the values of a profile are those in the lists."""
    OTHER = "nested"
    """Objects, other lists, bytes."""


@dataclass(frozen=True)
class ColumnProfile:
    """The profile of one column.

    Attributes:
        name: in the source.
        kind: of its values.
        rows: rows of the table.
        missing: rows without a value.
        values: its distinct values, None if there are more than DISTINCT_CAP.
        low: its smallest number, None for other kinds and without values.
        high: its largest number.
        time_formats: the formats, other than ISO 8601, that read all its values as times.
        has_decimal_comma: whether its texts are numbers with a comma before their fractions. "1,250" alone may be thousands.
        clock_formats: the formats that read all its values as times of day.
        no_ids: those of its texts that say that an id is missing.
    """

    name: str
    kind: ValueKind
    rows: int
    missing: int
    values: pa.Array | None
    low: float | None = None
    high: float | None = None
    time_formats: tuple[str, ...] = ()
    has_decimal_comma: bool = False
    clock_formats: tuple[str, ...] = ()
    no_ids: frozenset[str] = frozenset()

    @property
    def time_format(self) -> str | None:
        """Returns the only format that reads all its values as times; None: ISO 8601, or the order of day and month is not known."""
        return self.time_formats[0] if len(self.time_formats) == 1 else None

    def reads_times_with(self, time_format: str | None) -> bool:
        """Returns whether a table with this format reads the times of the column, which `is_time`."""
        if self.kind is ValueKind.TEXT or self.time_format is not None:
            return self.time_format == time_format
        return time_format is None or self.kind is ValueKind.TIMESTAMP or not reads_integers(time_format)

    @property
    def distinct(self) -> int:
        """Returns the number of distinct values, DISTINCT_CAP + 1 if there are more than DISTINCT_CAP."""
        return DISTINCT_CAP + 1 if self.values is None else len(self.values)

    @property
    def is_key(self) -> bool:
        """Returns whether every row has a value and, as far as they were counted, all values differ."""
        unique = self.values is None or len(self.values) == self.rows
        return bool(self.rows) and not self.missing and unique and self.kind in (ValueKind.INTEGER, ValueKind.TEXT)

    @property
    def summary(self) -> str:
        """Returns a short description for a comment."""
        many = f"more than {DISTINCT_CAP:,}" if self.values is None else f"{len(self.values):,}"
        parts = [str(self.kind)] if self.kind is ValueKind.OTHER else [str(self.kind), f"{many} distinct"]
        if self.rows and self.missing:
            parts.append(f"{100 * self.missing / self.rows:.0f}% missing")
        if self.values is not None and len(self.values):
            shown = (str(value).replace("\n", " ")[:24] for value in self.values.slice(0, _EXAMPLES).to_pylist())
            parts.append("e.g. " + ", ".join(shown))
        return ", ".join(parts)


def list_separator(column: ColumnProfile) -> str | None:
    """Returns the separator of a text column of lists (`Comedy|Drama`), None if its texts are single values.

    A separator is one whose parts repeat across values: "a|b", "a|c" and "b|c" have three parts that occur twice each, while
    the parts of titles with a comma hardly occur again.
    """
    if column.kind is not ValueKind.TEXT or column.values is None:
        return None
    texts = column.values.slice(0, _LIST_SAMPLE)
    if not len(texts):
        return None
    for separator in _SEPARATORS:
        has_it = pc.sum(pc.match_substring(texts, separator)).as_py() or 0
        if has_it < max(2, _LEAST_LISTS * len(texts)):
            continue
        parts = pc.list_flatten(pc.split_pattern(texts, separator))
        longest = pc.max(pc.utf8_length(parts)).as_py()
        if len(parts) >= _PART_USES * pc.count_distinct(parts).as_py() and longest <= _LONGEST_PART:
            return separator
    return None


def is_time(column: ColumnProfile) -> bool:
    """Returns whether a column of users or items holds times: timestamps, dates, text of one format, or numbers since 1970."""
    if column.kind in (ValueKind.INTEGER, ValueKind.NUMBER):
        is_named = _TIME.search(column.name) or _MOMENT.search(column.name)
        return _reads_as_timestamp(column) and (bool(is_named) or column.distinct > _FEW_TIMES)
    if len(column.time_formats) > 1:
        return False
    return _reads_as_timestamp(column) and (column.kind is ValueKind.TIMESTAMP or column.values is not None)


def profile_column(name: str, column: Any) -> ColumnProfile:
    """Returns the profile of a column, which is read chunk by chunk; null, "" and NaN are no values."""
    kind = kind_of(column.type)
    if kind is ValueKind.OTHER:
        is_clock = pat.is_time(column.type) and column.null_count < len(column)
        written = (time_text_format(column.type),) if is_clock else ()
        return ColumnProfile(name, kind, len(column), column.null_count, None, clock_formats=written)
    values: pa.Array | None = None
    missing, ends, no_ids = 0, [], frozenset[str]()
    is_text_kind, is_number = kind is ValueKind.TEXT, kind in (ValueKind.INTEGER, ValueKind.NUMBER)
    clocks: tuple[str, ...]
    formats = KNOWN if kind in (ValueKind.TEXT, ValueKind.INTEGER) else ()
    clocks, may_have_comma, has_comma = (CLOCKS if is_text_kind else ()), is_text_kind, False
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        plain = decode_column(chunk.cast(pa.string()) if pat.is_null(chunk.type) else chunk)
        present = decode_column(pc.list_flatten(plain) if kind is ValueKind.LIST else plain).drop_null()
        if pat.is_floating(present.type):
            present = present.filter(pc.invert(pc.is_nan(present)))
        elif is_text(present.type):
            present = present.filter(pc.not_equal(present, ""))
        missing += plain.null_count if kind is ValueKind.LIST else len(plain) - len(present)
        fresh = pc.unique(present)
        if is_number and len(fresh):
            ends += [float(end) for end in pc.min_max(fresh).as_py().values()]
        if kind is ValueKind.INTEGER and ends and not _EARLIEST_DAY <= min(ends) <= max(ends) <= _LATEST_DAY:
            formats = ()
        text = pc.utf8_trim_whitespace(fresh.cast(pa.string())) if formats or clocks or may_have_comma else None
        formats = find_time_formats(text, formats) if formats else ()
        clocks = find_time_formats(text, clocks) if clocks else ()
        if may_have_comma:
            may_have_comma = pc.all(pc.match_substring_regex(text, COMMA_NUMBER), min_count=0).as_py()
            has_comma |= pc.any(pc.match_substring_regex(text, r",(?:\d{1,2}|\d{4,})$"), min_count=0).as_py()
        if is_text_kind:
            no_ids |= set(fresh.filter(pc.is_in(fresh, value_set=pa.array(NO_IDS))).to_pylist())
        if values is None or len(values) <= DISTINCT_CAP:
            values = fresh if values is None else pc.unique(pa.concat_arrays([values, fresh]))
    has_values = missing < len(column)
    if kind is ValueKind.INTEGER and _HOUR.search(name) and ends:
        clocks = ("%H",) if min(ends) >= 0 and max(ends) <= _LAST_HOUR else ()
    return ColumnProfile(
        name,
        kind,
        len(column),
        missing,
        None if values is not None and len(values) > DISTINCT_CAP else values,
        min(ends, default=None),
        max(ends, default=None),
        formats if has_values else (),
        may_have_comma and has_comma,
        clocks if has_values else (),
        no_ids,
    )


def kind_of(kind: pa.DataType) -> ValueKind:
    """Returns the kind of a type's values."""
    if pat.is_boolean(kind):
        return ValueKind.BOOLEAN
    if pat.is_integer(kind):
        return ValueKind.INTEGER
    if pat.is_floating(kind) or pat.is_decimal(kind):
        return ValueKind.NUMBER
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return ValueKind.TIMESTAMP
    if (pat.is_list(kind) or pat.is_large_list(kind)) and kind_of(kind.value_type) in (ValueKind.TEXT, ValueKind.INTEGER):
        return ValueKind.LIST
    return ValueKind.TEXT if is_text(kind) or pat.is_null(kind) else ValueKind.OTHER


_USER: Final = re.compile(r"user|uid|member|customer|household|visitor|account|buyer|client|device|kunde|nutzer", re.IGNORECASE)
_ITEM: Final = re.compile(
    r"item|iid|sku|produ[ck]t|goods|arti[ck]e?l|movie|video|song|track|book|isbn|content|doc|stock", re.IGNORECASE
)
_USER_NAME: Final = re.compile(
    r"(listener|viewer|reader|player|subscriber|shopper|consumer|cookie|profile|person|guest|learner|student|reviewer)s?_?(id|key)?",
    re.IGNORECASE,
)
_ITEM_NAME: Final = re.compile(
    r"(asin|listing|business|restaurant|recipe|venue|place|poi|hotel|artist|album|anime|game|news|post|title|course|episode|show|photo"
    r"|offer|ad|app|job)s?_?(id|key)?",
    re.IGNORECASE,
)
"""Whole names of ids, which count where no column has a word of those above: `artist_id` is an attribute where there is a `track_id`."""
_TIME: Final = re.compile(r"time|date|datum|zeit|^ts$|_ts$|_at$|moment|clock", re.IGNORECASE)
_MOMENT: Final = re.compile(r"join|regist|publish|creat|born|birth|since|seen|start|releas|updat", re.IGNORECASE)
_MEASURE: Final = re.compile(r"rating|score|stars?$|price|count|quantity|qty|amount|rank|review$", re.IGNORECASE)
"""Names of numbers about users and items, which are no ids: `Book-Rating`."""
_UNNAMED: Final = re.compile(r"column_\d+")
_FEW_IDS: Final = 10
"""Distinct values up to which a column without a name has ratings or flags, not ids."""
_ID: Final = re.compile(r"id$|_no$|nr$|number$|nummer$|code$|key$|^user$|^item$", re.IGNORECASE)
_EVENT: Final = re.compile(r"event|action|behaviou?r|bhv|^type$|activity|operation", re.IGNORECASE)
EVENT_STAGES: Final = tuple(
    re.compile(words, re.IGNORECASE)
    for words in (
        r"expr|expos|impress|^imps?$|show|display",
        r"view|visit|browse|^pv$|detail",
        r"click|play|open|watch|read",
        r"fav|like|collect|wish|bookmark|share",
        r"cart|basket",
        r"buy|purchas|order|pay|transaction|checkout|convert|conversion|subscribe|rent",
    )
)
"""Names of events, from the widest to the narrowest."""
_HOUR: Final = re.compile(r"hour|stunde", re.IGNORECASE)
_LAST_HOUR: Final = 23
_MAX_EVENTS: Final = 50
_SEPARATORS: Final = ("\x1d", "|", ";", ", ", ",")
_LIST_SAMPLE: Final = 5_000
"""Distinct texts that are split to see whether they are lists."""
_LEAST_LISTS: Final = 0.1
"""Fraction of the texts that have the separator."""
_PART_USES: Final = 2
"""Times that a part occurs on average."""
_LONGEST_PART: Final = 60
_FEW_TIMES: Final = 20
"""Distinct numbers in the range of unix times from which on they are times whatever their name."""
_EARLIEST_S: Final = 631_152_000
"""1990-01-01: smaller numbers are not read as seconds."""
_LATEST_S: Final = 4_102_444_800
"""2100-01-01."""
_EARLIEST_DAY: Final = 19900101
_LATEST_DAY: Final = 21001231
"""Integers in between may be days such as 20260131."""
_DAY: Final = r"^\s*\d{4}-\d{2}-\d{2}(?: 00:00:00(?:\.0+)?)?\s*$"
_LEAST_OVERLAP: Final = 0.05


@dataclass(frozen=True)
class Roles:
    """The columns of the three tables, by their names in the sources.

    Attributes:
        user_key: the user table's key; None without such a table.
        item_key: the item table's key; None without such a table.
        user_id: the log's user ids.
        item_id: the log's item ids.
        event_time: the log's timestamps.
        event: the log's event names; None if all rows are of one event.
        clock: the log's times of day, where its timestamps are dates alone.
    """

    user_key: str | None
    item_key: str | None
    user_id: str
    item_id: str
    event_time: str
    event: str | None
    clock: str | None = None

    @property
    def of_log(self) -> tuple[str | None, ...]:
        """Returns the columns of the log that have a role."""
        return self.user_id, self.item_id, self.event_time, self.event, self.clock


Profiles = Sequence[ColumnProfile]
_Patterns = tuple[re.Pattern[str], re.Pattern[str]]
"""Words of names of ids, and whole names."""


def find_roles(users: Profiles | None, items: Profiles | None, log: Profiles, given: Mapping[str, str]) -> Roles:
    """Returns the roles of columns, guessed by values and names.

    Args:
        users: the user table's columns; None: there is no such table.
        items: the item table's columns; None: there is no such table.
        log: the log's columns.
        given: role in the log (user_id, item_id, event_time, event) -> column, as the user gave it.

    Raises:
        ConfigError: naming every role that no column fits, and every given column that does not exist; the log has no rows.
    """
    if not any(column.rows for column in log):
        found = f"the columns {', '.join(column.name for column in log)} without rows" if log else "no columns"
        raise ConfigError(Fault("log", "rows", found, "give a log with rows"))
    log = [_as_ids(column) for column in log]
    names = {column.name for column in log}
    faults = [
        Fault(
            f"--{role.replace('_', '-')}",
            f"a column of the log: {', '.join(sorted(names))}",
            repr(name),
            "correct its spelling",
        )
        for role, name in given.items()
        if name not in names
    ]
    user = _find_id_columns(users, log, (_USER, _USER_NAME), "user", given.get("user_id"), faults)
    used = {user[1]} if user else set()
    item = _find_id_columns(
        items, [column for column in log if column.name not in used], (_ITEM, _ITEM_NAME), "item", given.get("item_id"), faults
    )
    used |= {item[1]} if item else set()
    rest = [column for column in log if column.name not in used]
    time = given.get("event_time") or _find_timestamp(rest, faults)
    rest = [column for column in rest if column.name != time]
    event = given.get("event") or _find_event(rest)
    if faults or user is None or item is None or time is None:
        raise ConfigError(faults)
    dates = next(column for column in log if column.name == time)
    clock = _find_clock([column for column in rest if column.name != event]) if _is_date(dates) else None
    return Roles(user[0], item[0], user[1], item[1], time, event, clock)


def _as_ids(column: ColumnProfile) -> ColumnProfile:
    """Returns the profile of a column of integers in place of one of whole floats whose name says that they are ids: 17850.0."""
    is_named = (_USER.search(column.name) or _ITEM.search(column.name) or _ID.search(column.name)) and not _MEASURE.search(
        column.name
    )
    ends = (column.low, column.high)
    if column.kind is not ValueKind.NUMBER or not is_named or any(end is None or end != int(end) for end in ends):
        return column
    if column.values is not None and not _is_whole(column):
        return column
    values = None if column.values is None else column.values.cast(pa.int64())
    return replace(column, kind=ValueKind.INTEGER, values=values)


def _find_id_columns(
    entities: Profiles | None,
    log: Profiles,
    patterns: _Patterns,
    side: str,
    given: str | None,
    faults: list[Fault],
) -> tuple[str | None, str] | None:
    """Returns the entity table's key and the log's column of its ids: the pair whose values and names fit best."""
    if entities is None:
        return _find_ids_by_name(log, patterns, side, given, faults)
    keys = [column for column in entities if column.is_key]
    if not keys:
        found = "; ".join(f"{column.name}: {column.summary}" for column in entities) or "no columns"
        remedy = f"keep one row per {side} and give it an id; where a row is one property, pandas.DataFrame.pivot makes columns of them"
        faults.append(Fault(f"{side} table", "a column of ids: integers or text, all distinct, none missing", found, remedy))
        return None
    pattern, _ = patterns
    candidates = [
        column for column in log if (column.name == given if given else column.kind in (ValueKind.INTEGER, ValueKind.TEXT))
    ]
    scored = []
    for key in keys:
        for column in candidates:
            overlap = _overlap(key, column)
            if overlap >= _LEAST_OVERLAP or given:
                if _UNNAMED.fullmatch(column.name):
                    overlap *= column.distinct  # codes such as ratings are among the ids by chance
                is_named = bool(pattern.search(column.name)) + bool(pattern.search(key.name))
                is_named += key.name == column.name and not _UNNAMED.fullmatch(key.name)
                scored.append((is_named, overlap, key.name, column.name))
    if not scored:
        got = f"no column whose values are found in {', '.join(key.name for key in keys)}"
        remedy = f"name it with --{side}-id"
        faults.append(Fault(f"log, the column of {side} ids", f"ids of the {side} table", got, remedy))
        return None
    _, _, key_name, column_name = max(scored, key=lambda entry: entry[:2])
    return key_name, column_name


def _find_ids_by_name(
    log: Profiles, patterns: _Patterns, side: str, given: str | None, faults: list[Fault]
) -> tuple[None, str] | None:
    """Returns the log's column of ids of a side without a table: by a word of its name, then the one with most values."""
    kinds, (word, whole) = (ValueKind.INTEGER, ValueKind.TEXT), patterns
    possible = [column for column in log if column.kind in kinds and not _TIME.search(column.name)]
    if given:
        fitting = [column for column in log if column.kind in kinds and column.name == given]
    else:
        fitting = [column for column in possible if word.search(column.name)]
        fitting = fitting or [column for column in possible if whole.fullmatch(column.name)]
        fitting = fitting or _first_unnamed_ids(possible)
    if not fitting and given and given not in {column.name for column in log}:
        return None  # it is a fault already
    if not fitting:
        found = f"columns {', '.join(column.name for column in log)}" if log else "no columns"
        expected = f"integers or text in a column whose name says {side}, because there is no {side} table"
        remedy = f"name it with --{side}-id, or give the {side}s as a table with --{side}"
        faults.append(Fault(f"log, the column of {side} ids", expected, found, remedy))
        return None
    best = max(
        fitting,
        key=lambda column: (
            not _MEASURE.search(column.name),
            bool(_ID.search(column.name)),
            not column.missing,
            column.distinct,
        ),
    )
    return None, best.name


def unnamed_columns(count: int) -> list[str]:
    """Returns names for the columns of a file that has none."""
    return [f"column_{place}" for place in range(1, count + 1)]


def _first_unnamed_ids(columns: Profiles) -> list[ColumnProfile]:
    """Returns the first column without a name that may have ids: users come before items in nearly all published logs."""
    unnamed = [column for column in columns if _UNNAMED.fullmatch(column.name) and not _reads_as_timestamp(column)]
    several = [column for column in unnamed if column.distinct > 1 and not column.missing and not _numbers_rows(column)]
    return ([column for column in several if column.distinct > _FEW_IDS] or several)[:1]


def _numbers_rows(column: ColumnProfile) -> bool:
    """Returns whether each row has a value of its own, as an id of rows has."""
    return column.values is not None and len(column.values) == column.rows > _FEW_IDS


def _overlap(key: ColumnProfile, column: ColumnProfile) -> float:
    """Returns the fraction of a log column's distinct values that the key has; 1 if both have too many to count."""
    if (key.kind is ValueKind.INTEGER) != (column.kind is ValueKind.INTEGER):
        return 0.0
    if key.values is None or column.values is None:
        return 1.0 if key.values is None and column.values is None else _LEAST_OVERLAP
    if not len(column.values):
        return 0.0
    common = pa.int64() if key.kind is ValueKind.INTEGER else pa.string()
    return float(pc.mean(pc.is_in(column.values.cast(common), value_set=key.values.cast(common))).as_py())


def _find_timestamp(columns: Profiles, faults: list[Fault]) -> str | None:
    fitting = [column for column in columns if _reads_as_timestamp(column)]
    if not fitting:
        found = "; ".join(f"{column.name}: {column.summary}" for column in columns) or "no other columns"
        expected = "timestamps, dates as text (2026-01-31 10:00, 31.01.2026), or seconds or milliseconds since 1970"
        remedy = (
            "name it with --event-time, and the format of its text with --time-format, such as '%d.%m.%y %H:%M'; docs/platform.md says how "
            "to give days to a log without times"
        )
        faults.append(Fault("log, the column of timestamps", expected, found, remedy))
        return None
    return max(fitting, key=lambda column: (bool(_TIME.search(column.name)), column.distinct)).name


def _reads_as_timestamp(column: ColumnProfile) -> bool:
    if column.kind is ValueKind.TIMESTAMP:
        return True
    if column.kind in (ValueKind.INTEGER, ValueKind.NUMBER):
        return _is_unix_time(column) or bool(column.time_formats)
    if column.time_formats:
        return True
    if column.kind is not ValueKind.TEXT or column.values is None or not len(column.values):
        return column.kind is ValueKind.TEXT and column.values is None and bool(_TIME.search(column.name))
    try:
        to_event_time_ms(column.values.slice(0, 100), unit="auto", timezone="UTC", where="")
    except SchemaError:
        return False
    return not bool(pc.all(pc.match_substring_regex(column.values.slice(0, 100), r"^\d{1,8}$")).as_py())


def _is_date(column: ColumnProfile) -> bool:
    """Returns whether a column of timestamps has days alone."""
    if column.time_formats:
        return not any(map(has_clock, column.time_formats))
    if column.values is None or column.kind not in (ValueKind.TEXT, ValueKind.TIMESTAMP):
        return False
    return bool(pc.all(pc.match_substring_regex(column.values.cast(pa.string()), _DAY)).as_py())


def _find_clock(columns: Profiles) -> str | None:
    """Returns the column of times of day: one whose name says so, else the first."""
    clocks = [column for column in columns if column.clock_formats and not column.missing]
    return max(clocks, key=lambda column: bool(_TIME.search(column.name))).name if clocks else None


def _is_unix_time(column: ColumnProfile) -> bool:
    """Returns whether all numbers are seconds or milliseconds of the years 1990 to 2100."""
    if column.low is None or column.high is None or (column.kind is ValueKind.NUMBER and not _is_whole(column)):
        return False
    scale = 1 if column.high < SECONDS_BELOW else 1000
    return column.low >= _EARLIEST_S * scale and column.high <= _LATEST_S * scale


def _is_whole(column: ColumnProfile) -> bool:
    return column.values is not None and bool(pc.all(pc.equal(pc.floor(column.values), column.values)).as_py())


def _find_event(columns: Profiles) -> str | None:
    """Returns the first column with a name for events, few distinct values and none missing."""
    kinds = (ValueKind.TEXT, ValueKind.INTEGER)
    named = [column for column in columns if column.kind in kinds and _EVENT.search(column.name)]
    named += [column for column in columns if _UNNAMED.fullmatch(column.name) and _has_event_names(column)]
    return next((column.name for column in named if 0 < column.distinct <= _MAX_EVENTS and not column.missing), None)


def _has_event_names(column: ColumnProfile) -> bool:
    """Returns whether all values are names of events: "pv", "cart", "fav", "buy"."""
    if column.kind is not ValueKind.TEXT or column.distinct > _MAX_EVENTS or column.values is None:
        return False
    return all(any(stage.search(value) for stage in EVENT_STAGES) for value in column.values.to_pylist())
