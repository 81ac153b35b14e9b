"""Recognises time formats by the values of a column; ISO 8601 is not among them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

from dssm_assets.core.sources.time_format import query_texts, write_parser

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
"""The formats that are recognised by their values; none reads ISO 8601."""


def find_time_formats(text: Any, among: Sequence[str] = KNOWN) -> tuple[str, ...]:
    """Returns the formats that read all of some texts. "03.04.2026" has several, because it does not show which number is the day.

    Args:
        text: texts without nulls. If there are none, all formats are returned.
        among: the formats to try.
    """
    letters = set(text[0].as_py()) if len(text) else set()
    possible = tuple(one for one in among if not len(text) or set(re.sub("%.", "", one)) <= letters)
    for some in (text[:1], text):  # the first text leaves few
        if possible and len(some):
            columns = ", ".join(f"count({write_parser(one)}) AS c{number}" for number, one in enumerate(possible))
            counts = query_texts(some, f"SELECT {columns} FROM texts").to_pylist()[0].values()
            possible = tuple(one for one, count in zip(possible, counts, strict=True) if count == len(some))
    return possible
