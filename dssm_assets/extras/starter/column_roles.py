"""Profiles the columns of an unknown table and guesses their roles (ids, timestamp, event)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ragged import is_text
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.sources.convert import COMMA_NUMBER, NO_IDS, decode_column
from dssm_assets.core.sources.event_time import SECONDS_BELOW, time_text_format, to_event_time_ms
from dssm_assets.core.sources.time_format import has_clock, reads_integers
from dssm_assets.extras.starter.time_formats import CLOCKS, KNOWN, find_time_formats

DISTINCT_CAP: Final = 200_000
"""Distinct values are counted up to this number."""


def _words(words: str) -> re.Pattern[str]:
    return re.compile(words, re.IGNORECASE)


_ID_WORDS: Final = {
    "user": _words(r"user|uid|member|customer|household|visitor|account|buyer|client|device|kunde|nutzer"),
    "item": _words(r"item|iid|sku|produ[ck]t|goods|arti[ck]e?l|movie|video|song|track|book|isbn|content|doc|stock"),
}
_ID_NAMES: Final = {
    "user": _words(
        r"(listener|viewer|reader|player|subscriber|shopper|consumer|cookie|profile|person|guest|learner|student|reviewer)s?_?(id|key)?"
    ),
    "item": _words(
        r"(asin|listing|business|restaurant|recipe|venue|place|poi|hotel|artist|album|anime|game|news|post|title|course|episode|show|photo"
        r"|offer|ad|app|job)s?_?(id|key)?"
    ),
}
"""Whole names of ids. They count only if no column has a word from above: beside a `track_id`, an `artist_id` is an attribute."""
_ID: Final = _words(r"id$|_no$|nr$|number$|nummer$|code$|key$|^user$|^item$")
_TIME: Final = _words(r"time|date|datum|zeit|^ts$|_ts$|_at$|moment|clock")
_MOMENT: Final = _words(r"join|regist|publish|creat|born|birth|since|seen|start|releas|updat")
_MEASURE: Final = _words(r"rating|score|stars?$|price|count|quantity|qty|amount|rank|review$")
"""Names of numbers about users and items that are not ids: `Book-Rating`."""
_HOUR: Final = _words(r"hour|stunde")
_EVENT: Final = _words(r"event|action|behaviou?r|bhv|^type$|activity|operation")
EVENT_STAGES: Final = tuple(
    map(
        _words,
        (
            r"expr|expos|impress|^imps?$|show|display",
            r"view|visit|browse|^pv$|detail",
            r"click|play|open|watch|read",
            r"fav|like|collect|wish|bookmark|share",
            r"cart|basket",
            r"buy|purchas|order|pay|transaction|checkout|convert|conversion|subscribe|rent",
        ),
    )
)
"""Names of events, from the widest to the narrowest."""
_UNNAMED: Final = re.compile(r"column_\d+")
_FEW_IDS: Final = 10
"""A column without a name that has at most so many distinct values holds ratings or flags, not ids."""
_MAX_EVENTS: Final = 50
_SEPARATORS: Final = ("\x1d", "|", ";", ", ", ",")
_LIST_SAMPLE: Final = 5_000
"""So many distinct texts are split to see whether they are lists."""
_LEAST_LISTS: Final = 0.1
"""A column holds lists if at least this fraction of its texts has the separator."""
_PART_USES: Final = 2
"""A column holds lists if each part occurs at least so many times on average."""
_LONGEST_PART: Final = 60
_LISTED: Final = 12
"""An error names at most so many columns."""
_FEW_TIMES: Final = 20
"""A column with at least so many distinct numbers in the range of unix times holds times, whatever its name."""
_UNIX_S: Final = (631_152_000, 4_102_444_800)
"""1990 to 2100: other numbers are not read as times."""
_DAY_NUMBERS: Final = (19900101, 21001231)
"""Integers in between may be days such as 20260131."""
_DAY: Final = r"^\s*\d{4}-\d{2}-\d{2}(?: 00:00:00(?:\.0+)?)?\s*$"
_LEAST_OVERLAP: Final = 0.05


class ValueKind(StrEnum):
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    LIST = "list"
    """Lists of texts or integers. The values of such a column's profile are the entries of its lists."""
    OTHER = "nested"
    """Objects, other lists, bytes."""


_ID_KINDS: Final = (ValueKind.INTEGER, ValueKind.TEXT)
_NUMBERS: Final = (ValueKind.INTEGER, ValueKind.NUMBER)


@dataclass(frozen=True)
class ColumnProfile:
    """The profile of one column.

    Attributes:
        missing: rows without a value.
        values: its distinct values in the order of their first rows, None if there are more than DISTINCT_CAP.
        low, high: its smallest and largest number; None if it has none.
        time_formats: the formats, other than ISO 8601, that read all its values as times.
        has_decimal_comma: whether its texts are numbers with a decimal comma. "1,250" alone may mean thousands.
        clock_formats: the formats that read all its values as times of day.
        no_ids: texts that mean a missing id.
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
        """Returns the only format that reads all values as times. None: ISO 8601, or the order of day and month is unknown."""
        return self.time_formats[0] if len(self.time_formats) == 1 else None

    def reads_times_with(self, time_format: str | None) -> bool:
        """Returns whether a table with this format can read the times of this column (`is_time`)."""
        if self.kind is ValueKind.TEXT or self.time_format is not None:
            return self.time_format == time_format
        return time_format is None or self.kind is ValueKind.TIMESTAMP or not reads_integers(time_format)

    @property
    def distinct(self) -> int:
        return DISTINCT_CAP + 1 if self.values is None else len(self.values)

    @property
    def is_key(self) -> bool:
        """Returns whether every row has a value and all values differ, as far as they were counted."""
        is_unique = self.values is None or len(self.values) == self.rows
        return bool(self.rows) and not self.missing and is_unique and self.kind in _ID_KINDS

    @property
    def summary(self) -> str:
        many = f"more than {DISTINCT_CAP:,}" if self.values is None else f"{len(self.values):,}"
        parts = [str(self.kind)] if self.kind is ValueKind.OTHER else [str(self.kind), f"{many} distinct"]
        if self.rows and self.missing:
            parts.append(f"{100 * self.missing / self.rows:.0f}% missing")
        if self.values is not None and len(self.values):
            shown = (str(value).replace("\n", " ")[:24] for value in self.values.slice(0, 3).to_pylist())
            parts.append("e.g. " + ", ".join(shown))
        return ", ".join(parts)


def profile_column(name: str, column: Any) -> ColumnProfile:
    """Profiles a column chunk by chunk. Null, "" and NaN count as missing values."""
    kind, has_comma = kind_of(column.type), False
    clocks: tuple[str, ...] = ()
    if kind is ValueKind.OTHER:
        if pat.is_time(column.type) and column.null_count < len(column):
            clocks = (time_text_format(column.type),)
        return ColumnProfile(name, kind, len(column), column.null_count, None, clock_formats=clocks)
    formats = KNOWN if kind in _ID_KINDS else ()
    values: Any = None
    missing, ends, no_ids = 0, list[Any](), frozenset[str]()
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        plain = decode_column(chunk.cast(pa.string()) if pat.is_null(chunk.type) else chunk)
        present = decode_column(pc.list_flatten(plain) if kind is ValueKind.LIST else plain).drop_null()
        if pat.is_floating(present.type):
            present = present.filter(pc.invert(pc.is_nan(present)))
        elif is_text(present.type):
            present = present.filter(pc.not_equal(present, ""))
        missing += plain.null_count if kind is ValueKind.LIST else len(plain) - len(present)
        fresh = pc.unique(present)
        if kind in _NUMBERS and len(fresh):
            ends += [float(end) for end in pc.min_max(fresh).as_py().values()]
        if kind is ValueKind.INTEGER and ends and not _DAY_NUMBERS[0] <= min(ends) <= max(ends) <= _DAY_NUMBERS[1]:
            formats = ()
        if formats:
            formats = find_time_formats(_trim(fresh), formats)
        if kind is ValueKind.TEXT:
            no_ids |= set(fresh.filter(pc.is_in(fresh, value_set=pa.array(NO_IDS))).to_pylist())
        if values is None or len(values) <= DISTINCT_CAP:
            values = fresh if values is None else pc.unique(pa.concat_arrays([values, fresh]))
    if kind is ValueKind.TEXT and values is not None and len(values):
        clocks = find_time_formats(_trim(values), CLOCKS)
        is_fraction = pc.match_substring_regex(_trim(values), r",(?:\d{1,2}|\d{4,})$")
        has_comma = pc.any(is_fraction).as_py() and pc.all(pc.match_substring_regex(_trim(values), COMMA_NUMBER)).as_py()
    elif kind is ValueKind.INTEGER and _HOUR.search(name) and ends and min(ends) >= 0 and max(ends) <= 23:
        clocks = ("%H",)
    values = None if values is not None and len(values) > DISTINCT_CAP else values
    low, high = min(ends, default=None), max(ends, default=None)
    formats = formats if missing < len(column) else ()
    return ColumnProfile(name, kind, len(column), missing, values, low, high, formats, has_comma, clocks, no_ids)


def _trim(values: pa.Array) -> pa.Array:
    return pc.utf8_trim_whitespace(values.cast(pa.string()))


def kind_of(kind: pa.DataType) -> ValueKind:
    if pat.is_boolean(kind):
        return ValueKind.BOOLEAN
    if pat.is_integer(kind):
        return ValueKind.INTEGER
    if pat.is_floating(kind) or pat.is_decimal(kind):
        return ValueKind.NUMBER
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return ValueKind.TIMESTAMP
    if (pat.is_list(kind) or pat.is_large_list(kind)) and kind_of(kind.value_type) in _ID_KINDS:
        return ValueKind.LIST
    return ValueKind.TEXT if is_text(kind) or pat.is_null(kind) else ValueKind.OTHER


def list_separator(column: ColumnProfile) -> str | None:
    """Returns the separator of a text column of lists (`Comedy|Drama`). None: its texts are single values.

    The parts of lists occur in many values. The parts of a title with a comma hardly occur again.
    """
    if column.kind is not ValueKind.TEXT or column.values is None:
        return None
    texts = column.values.slice(0, _LIST_SAMPLE)
    for separator in _SEPARATORS:
        has_it = pc.sum(pc.match_substring(texts, separator)).as_py() or 0
        if has_it >= max(2, _LEAST_LISTS * len(texts)):
            parts = pc.list_flatten(pc.split_pattern(texts, separator))
            longest = pc.max(pc.utf8_length(parts)).as_py()
            if len(parts) >= _PART_USES * pc.count_distinct(parts).as_py() and longest <= _LONGEST_PART:
                return separator
    return None


def is_time(column: ColumnProfile) -> bool:
    """Returns whether a column of users or items holds times: timestamps, dates, text of one format, or numbers since 1970."""
    if not _reads_as_timestamp(column):
        return False
    if column.kind in _NUMBERS:
        return bool(_TIME.search(column.name) or _MOMENT.search(column.name)) or column.distinct > _FEW_TIMES
    return len(column.time_formats) <= 1 and (column.kind is ValueKind.TIMESTAMP or column.values is not None)


@dataclass(frozen=True)
class Roles:
    """The role of each column in the three tables, by source names.

    Attributes:
        user_key, item_key: the key of the user or item table. None: there is no such table.
        event: the log's column of event names. None: all rows are of one event.
        clock: the log's column of times of day, if its timestamps are dates without a time.
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
        return self.user_id, self.item_id, self.event_time, self.event, self.clock


Profiles = Sequence[ColumnProfile]


def find_roles(users: Profiles | None, items: Profiles | None, log: Profiles, given: Mapping[str, str]) -> Roles:
    """Guesses the roles of columns by values and names.

    Args:
        users, items: the columns of these tables; None: there is no such table.
        given: role in the log (user_id, item_id, event_time, event) -> column, as the user gave it.

    Raises:
        ConfigError: a role has no fitting column, a given column does not exist (the error lists all of these), or the log is empty.
    """
    if not any(column.rows for column in log):
        got = f"the columns {', '.join(column.name for column in log)} without rows" if log else "no columns"
        raise ConfigError(Fault("log", "rows", got, "give a log with rows"))
    columns = {column.name: _as_ids(column) for column in log}
    rest = dict(columns)
    expected = f"a column of the log: {', '.join(sorted(rest))}"
    unknown = {role: name for role, name in given.items() if name not in rest}
    faults = [
        Fault(f"--{role.replace('_', '-')}", expected, repr(name), "correct its spelling") for role, name in unknown.items()
    ]
    keys: dict[str, str | None] = {}
    ids: dict[str, str] = {}
    for side, entities in (("user", users), ("item", items)):
        if (role := f"{side}_id") in unknown:
            continue
        try:
            keys[side], ids[side] = _find_ids(side, entities, list(rest.values()), given.get(role))
            del rest[ids[side]]
        except ConfigError as error:
            faults += error.faults
    time = given.get("event_time") or _find_timestamp(list(rest.values()), faults)
    ConfigError.raise_if(faults)
    rest.pop(time, None)
    event = given.get("event") or _find_event(list(rest.values()))
    clocks = [column for name, column in rest.items() if name != event and column.clock_formats and not column.missing]
    clock = max(clocks, key=lambda column: bool(_TIME.search(column.name))).name if clocks and _is_date(columns[time]) else None
    return Roles(keys["user"], keys["item"], ids["user"], ids["item"], time, event, clock)


def _as_ids(column: ColumnProfile) -> ColumnProfile:
    """Returns a profile of whole floats (17850.0) as one of integers, if the column's name says that they are ids."""
    is_named = any(pattern.search(column.name) for pattern in (*_ID_WORDS.values(), _ID)) and not _MEASURE.search(column.name)
    is_whole = all(end is not None and end.is_integer() for end in (column.low, column.high))
    if column.kind is not ValueKind.NUMBER or not is_named or not is_whole:
        return column
    if column.values is None:
        return replace(column, kind=ValueKind.INTEGER)
    return replace(column, kind=ValueKind.INTEGER, values=column.values.cast(pa.int64())) if _is_whole(column) else column


def _find_ids(side: str, entities: Profiles | None, log: Profiles, given: str | None) -> tuple[str | None, str]:
    """Returns the key of the user or item table (None without such a table) and the log's column with its ids.

    Without a table, the column's name decides. With a table, the pair of columns whose names and values fit best is chosen.
    """
    possible = [column for column in log if column.kind in _ID_KINDS and (not given or column.name == given)]
    if entities is None:
        named = possible if given else _find_by_name(side, [column for column in possible if not _TIME.search(column.name)])
        if not named:
            expected, got = f"a column that is named for {side}s", _list_some([column.name for column in log], ", ")
            remedy = f"name it with --{side}-id, or give the {side}s as a table with --{side}"
            raise ConfigError(Fault(f"log, the column of {side} ids", expected, got, remedy))

        def rank(column: ColumnProfile) -> tuple[bool, bool, bool, int]:
            return not _MEASURE.search(column.name), bool(_ID.search(column.name)), not column.missing, column.distinct

        return None, max(named, key=rank).name
    keys = [column for column in entities if column.is_key]
    if not keys:
        got = _list_some([f"{column.name}: {column.summary}" for column in entities]) or "no columns"
        remedy = f"keep one row per {side} and give it an id"
        raise ConfigError(Fault(f"{side} table", "a column of ids: integers or text, all distinct, none missing", got, remedy))
    scored = []
    for key in keys:
        for column in possible:
            overlap = _overlap(key, column)
            if overlap >= _LEAST_OVERLAP or given:
                if _UNNAMED.fullmatch(column.name):
                    overlap *= column.distinct  # codes such as ratings also occur among the ids by chance
                is_named = sum(bool(_ID_WORDS[side].search(name)) for name in (column.name, key.name))
                is_named += key.name == column.name and not _UNNAMED.fullmatch(key.name)
                scored.append((is_named, overlap, key.name, column.name))
    if not scored:
        got = f"no column whose values are found in {', '.join(key.name for key in keys)}"
        raise ConfigError(Fault(f"log, the column of {side} ids", f"ids of the {side} table", got, f"name it with --{side}-id"))
    _, _, key_name, column_name = max(scored, key=lambda entry: entry[:2])
    return key_name, column_name


def _list_some(texts: Sequence[str], separator: str = "; ") -> str:
    more = [f"{len(texts) - _LISTED} more"] if len(texts) > _LISTED else []
    return separator.join([*texts[:_LISTED], *more])


def _find_by_name(side: str, columns: Profiles) -> Profiles:
    """Returns the columns with an id's word in their name, else an id's whole name, else the first unnamed column fit for ids.

    Nearly all published logs have users before items. A column that numbers the rows is left out.
    """
    named = [column for column in columns if _ID_WORDS[side].search(column.name)]
    named = named or [column for column in columns if _ID_NAMES[side].fullmatch(column.name)]
    unnamed = [column for column in columns if _UNNAMED.fullmatch(column.name) and not _reads_as_timestamp(column)]
    several = [column for column in unnamed if column.distinct > 1 and not column.missing]
    several = [column for column in several if not (column.is_key and column.values is not None and column.rows > _FEW_IDS)]
    return named or ([column for column in several if column.distinct > _FEW_IDS] or several)[:1]


def _overlap(key: ColumnProfile, column: ColumnProfile) -> float:
    """Returns the fraction of a log column's distinct values that occur in the key. 1 if both have too many values to count."""
    if (key.kind is ValueKind.INTEGER) != (column.kind is ValueKind.INTEGER):
        return 0.0
    if key.values is None or column.values is None:
        return 1.0 if key.values is None and column.values is None else _LEAST_OVERLAP
    common = pa.int64() if key.kind is ValueKind.INTEGER else pa.string()
    return float(
        pc.mean(pc.is_in(column.values.cast(common, safe=False), value_set=key.values.cast(common, safe=False))).as_py() or 0.0
    )


def _find_timestamp(columns: Profiles, faults: list[Fault]) -> str:
    fitting = [column for column in columns if _reads_as_timestamp(column)]
    if fitting:
        return max(fitting, key=lambda column: (bool(_TIME.search(column.name)), column.distinct)).name
    got = _list_some([f"{column.name}: {column.summary}" for column in columns]) or "no other columns"
    expected = "timestamps, dates as text (2026-01-31 10:00, 31.01.2026), or seconds or milliseconds since 1970"
    remedy = "name it with --event-time and --time-format, such as '%d.%m.%y %H:%M'; docs/platform.md has logs without times"
    faults.append(Fault("log, the column of timestamps", expected, got, remedy))
    return ""


def _reads_as_timestamp(column: ColumnProfile) -> bool:
    if column.kind is ValueKind.TIMESTAMP or column.time_formats:
        return True
    if column.low is not None and column.high is not None and (column.kind is ValueKind.INTEGER or _is_whole(column)):
        scale = 1 if column.high < SECONDS_BELOW else 1000  # seconds or milliseconds
        return column.low >= _UNIX_S[0] * scale and column.high <= _UNIX_S[1] * scale
    if column.kind is not ValueKind.TEXT or not column.distinct:
        return False
    if column.values is None:
        return bool(_TIME.search(column.name))
    try:
        to_event_time_ms(column.values.slice(0, 100), unit="auto", timezone="UTC", where="")
    except SchemaError:
        return False
    return not bool(pc.all(pc.match_substring_regex(column.values.slice(0, 100), r"^\d{1,8}$")).as_py())


def _is_whole(column: ColumnProfile) -> bool:
    return column.values is not None and bool(pc.all(pc.equal(pc.floor(column.values), column.values)).as_py())


def _is_date(column: ColumnProfile) -> bool:
    if column.time_formats:
        return not any(map(has_clock, column.time_formats))
    if column.values is None or column.kind not in (ValueKind.TEXT, ValueKind.TIMESTAMP):
        return False
    return bool(pc.all(pc.match_substring_regex(column.values.cast(pa.string()), _DAY)).as_py())


def _find_event(columns: Profiles) -> str | None:
    """Returns the first column that looks like events by its name or values, with few distinct values and none missing."""
    few = [
        column for column in columns if column.kind in _ID_KINDS and 0 < column.distinct <= _MAX_EVENTS and not column.missing
    ]
    named = [column for column in few if _EVENT.search(column.name)]
    for column in few:
        values = column.values.to_pylist() if column.kind is ValueKind.TEXT and column.values is not None else [""]
        if _UNNAMED.fullmatch(column.name) and all(any(stage.search(value) for stage in EVENT_STAGES) for value in values):
            named.append(column)
    return named[0].name if named else None
