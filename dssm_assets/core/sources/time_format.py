"""Formats of times in texts that are not ISO 8601: read by the directives of strptime, and recognised by the values.

Numbers of days, months and hours may lack the leading zero, unless another number follows or precedes at once. Names of months and weekdays are English, whole or short, in
any case; the weekday is not looked at. A space is one or more. Two digits of a year are 1969 to 2068, as POSIX has it.

A configuration checks its formats without pyarrow: the code location loads no heavy library.

Belongs here: texts to ISO 8601 texts. Does not belong here: ISO 8601 texts to timestamps (`event_time.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = (
    r"(?P<month_name>(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?))"
)
_WEEKDAY: Final = r"(?i:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?i:day)?"
_DIRECTIVES: Final = {
    "%Y": r"(?P<year>\d{4})",
    "%y": r"(?P<short_year>\d{2})",
    "%m": r"(?P<month>0?[1-9]|1[0-2])",
    "%b": _MONTH,
    "%B": _MONTH,
    "%a": _WEEKDAY,
    "%A": _WEEKDAY,
    "%d": r"(?P<day>0?[1-9]|[12]\d|3[01])",
    "%H": r"(?P<hour>[01]?\d|2[0-3])",
    "%I": r"(?P<half_hour>0?[1-9]|1[0-2])",
    "%p": r"(?P<half>[AaPp][Mm])",
    "%M": r"(?P<minute>[0-5]\d)",
    "%S": r"(?P<second>[0-5]\d)",
    "%f": r"(?P<fraction>\d{1,9})",
    "%z": r"(?P<zone>Z|z|GMT|UTC|[+-]\d{2}(?::?\d{2})?)",
}
_NO_NUMBERS: Final = ("%p", "%z", "%b", "%B", "%a", "%A")
_MONTH_DIRECTIVES: Final = {"%m", "%b", "%B"}
_TOKEN: Final = re.compile(r"%.|[^%]+|%$", re.DOTALL)
CLOCKS: Final = (
    "%H:%M:%S",
    "%H:%M",
    "%H:%M:%S.%f",
    "%I:%M:%S %p",
    "%I:%M %p",
    "%H.%M.%S",
    "%H.%M",
    "%H:%M:%S%z",
    "%H:%M:%S %z",
)
"""The formats of times of day that are recognised by their values."""
_DATES: Final = (
    *(date.format(separator) for separator in (".", "/", "-") for date in ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
    "%Y.%m.%d",
    "%Y/%m/%d",
    *(date.format(separator) for separator in ("/", "-") for date in ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")),
    "%d/%b/%Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%b %d, %Y",
    "%b %d %Y",
    "%m %d, %Y",
)
KNOWN: Final = (
    "%Y%m%d",
    *_DATES,
    *(f"{date}{gap}{clock}" for date, gap, clock in itertools.product(_DATES, (" ", "T", ", "), CLOCKS)),
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
"""The formats that are recognised by their values; none of them reads ISO 8601."""


def check_time_format(time_format: str) -> str:
    """Returns a format.

    Raises:
        ValueError: it has an unknown directive, one twice, no whole date, or a clock of 12 hours without %p.
    """
    used = [token for token in _TOKEN.findall(time_format) if token.startswith("%")]
    unknown = [token for token in used if token not in _DIRECTIVES]
    has_date = "%d" in used and len(_MONTH_DIRECTIVES & set(used)) == 1 and ("%Y" in used) != ("%y" in used)
    has_clock = ("%I" in used) == ("%p" in used) and not {"%H", "%I"} <= set(used)
    if unknown or len(set(used)) < len(used) or not has_date or not has_clock:
        known = " ".join(_DIRECTIVES)
        raise ValueError(
            f"expected a day, a month and a year, each once, of the directives {known}, %I with %p, such as '%d.%m.%Y %H:%M', "
            f"got {time_format!r}"
        )
    return time_format


def to_iso_text(text: Any, time_format: str) -> pa.Array:
    """Returns texts of a format as ISO 8601 texts; null where a text does not fit.

    By hand: "3.1.2026 14:05" of `%d.%m.%Y %H:%M` is "2026-01-03 14:05:00".

    Args:
        text: texts, without spaces around them.
        time_format: see `check_time_format`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.extract_regex(text, _pattern(time_format))
    names = [field.name for field in parts.type]

    def part(name: str, default: str) -> Any:
        return pc.struct_field(parts, name) if name in names else default

    year = part("year", "")
    if "short_year" in names:
        short = part("short_year", "")
        year = pc.binary_join_element_wise(pc.if_else(pc.greater_equal(short, "69"), "19", "20"), short, "")
    month = part("month", "")
    if "month_name" in names:
        short_name = pc.utf8_lower(pc.utf8_slice_codeunits(part("month_name", ""), 0, 3))
        month = pc.add(pc.index_in(short_name, value_set=pa.array(_MONTHS)), 1).cast(pa.string())
    hour = part("hour", "00")
    if "half_hour" in names:
        morning = pc.if_else(pc.equal(part("half_hour", "").cast(pa.int64()), 12), 0, part("half_hour", "").cast(pa.int64()))
        is_later = pc.equal(pc.utf8_lower(part("half", "")), "pm")
        hour = pc.if_else(is_later, pc.add(morning, 12), morning).cast(pa.string())
    date = pc.binary_join_element_wise(year, _two(month), _two(part("day", "")), "-")
    clock = pc.binary_join_element_wise(_two(hour), part("minute", "00"), part("second", "00"), ":")
    fraction = pc.binary_join_element_wise(".", part("fraction", ""), "") if "fraction" in names else ""
    found = pc.binary_join_element_wise(date, " ", clock, fraction, part("zone", ""), "")
    return pc.if_else(pc.is_valid(parts), found, None)


def find_time_formats(text: Any, among: Sequence[str] = KNOWN) -> tuple[str, ...]:
    """Returns the formats that read every one of some texts: none, one, or several, as "03.04.2026" has a day and a month in either order.

    Args:
        text: texts without nulls; without any, all formats are left.
        among: the formats to try.
    """
    first = text[0].as_py() if len(text) else None
    possible = [one for one in among if first is None or _letters(one) <= set(first)]
    possible = [time_format for time_format in possible if _fits(text[:1], time_format)]
    return tuple(time_format for time_format in possible if _fits(text, time_format))


def has_clock(time_format: str) -> bool:
    """Returns whether a format has a time of day."""
    return bool({"%H", "%I"} & set(_TOKEN.findall(time_format)))


def reads_integers(time_format: str) -> bool:
    """Returns whether a format has nothing between its numbers, so that integers may be such times: 20260131."""
    return all(token in _DIRECTIVES and token not in _NO_NUMBERS for token in _TOKEN.findall(time_format))


def digits_text(integers: Any, time_format: str) -> pa.Array:
    """Returns integers as texts of a format that `reads_integers`, with the zeros that an integer lacks: 60131 of %y%m%d is "060131"."""
    import pyarrow.compute as pc

    tokens = _TOKEN.findall(time_format)
    width = 0 if "%f" in tokens else sum(4 if token == "%Y" else 2 for token in tokens)
    return pc.utf8_lpad(integers.cast("string"), width, "0")


@cache
def _letters(time_format: str) -> frozenset[str]:
    """Returns what is between the parts of a format: a text without one of these cannot fit, which is cheaper to see than to match."""
    return frozenset("".join(token for token in _TOKEN.findall(time_format) if token not in _DIRECTIVES))


def _fits(text: Any, time_format: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(text, _pattern(time_format)), min_count=0).as_py())


def _pattern(time_format: str) -> str:
    tokens = _TOKEN.findall(time_format)
    parts = []
    for place, token in enumerate(tokens):
        part = _DIRECTIVES.get(token) or re.escape(token).replace(r"\ ", " +")
        neighbours = {*tokens[max(place - 1, 0) : place], *tokens[place + 1 : place + 2]}
        if token in _DIRECTIVES and neighbours & (_DIRECTIVES.keys() - set(_NO_NUMBERS)):
            part = part.replace(">0?", ">0").replace("[01]?", "[01]")  # two digits
        parts.append(part)
    return f"^{''.join(parts)}$"


def _two(digits: Any) -> Any:
    import pyarrow.compute as pc

    return digits.zfill(2) if isinstance(digits, str) else pc.utf8_lpad(digits, 2, "0")
