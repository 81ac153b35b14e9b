"""The training window of an evaluation day as a table (days, rows, digests), and the sentence that says what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from dssm_assets.core.errors import remedy_of_missing
from dssm_assets.core.schema import ColumnSpec, TableSpec

TRAINING_WINDOW: Final = TableSpec(
    "training_window",
    "one row per table and day of its window",
    ("table", "day"),
    (
        ColumnSpec("table", pa.string(), "Table that training reads."),
        ColumnSpec("day", pa.string(), "Day of the window."),
        ColumnSpec("rows", pa.int64(), "Rows of that day; null if it was never materialized.", is_nullable=True),
        ColumnSpec("digest", pa.string(), "Digest of that day's content; null if it was never materialized.", is_nullable=True),
    ),
)


@dataclass(frozen=True)
class WindowReport:
    """Whether a window is complete, and what to do if it is not.

    Attributes:
        is_complete: every table has every day.
        sentence: the result in words, with the way to make the missing days.
        missing: table -> its missing days.
    """

    is_complete: bool
    sentence: str
    missing: Mapping[str, Sequence[str]]


Found = Mapping[str, Mapping[str, tuple[int, str] | None]]
"""Table -> day -> (rows, digest), None for a day without a partition."""


def describe_window(found: Found, first_day: str, ds: str) -> tuple[pa.Table, WindowReport]:
    """Returns the window's table and whether it is complete.

    Args:
        found: the days of the window of each table.
        first_day: the first day that can have data; earlier days can never be filled.
        ds: the evaluation day.
    """
    rows = [
        {"table": table, "day": day, "rows": None if state is None else state[0], "digest": None if state is None else state[1]}
        for table, days in sorted(found.items())
        for day, state in sorted(days.items())
    ]
    schema = pa.schema([pa.field(column.name, column.type) for column in TRAINING_WINDOW.columns])
    missing = {
        table: missing_days
        for table, days in sorted(found.items())
        if (missing_days := [day for day, state in sorted(days.items()) if state is None])
    }
    return pa.Table.from_pylist(rows, schema=schema), WindowReport(
        not missing, _sentence(missing, first_day, ds, found), missing
    )


def _sentence(missing: Mapping[str, Sequence[str]], first_day: str, ds: str, found: Found) -> str:
    if not missing:
        # The days of feature tables start a day earlier than those of the samples that point into them.
        days: list[str] = min([sorted(of_table) for of_table in found.values()], key=len)
        return f"all {len(days)} days from {days[0]} to {days[-1]} are materialized"
    shown = "; ".join(f"{table}: {_shorten(days)}" for table, days in missing.items())
    remedy = (
        f"evaluate a later day or set window.days lower, for calendar.start is {first_day}"
        if any(day < first_day for days in missing.values() for day in days)
        else remedy_of_missing("train_and_evaluate", ds)
    )
    return f"missing: {shown}. To fix: {remedy}"


def _shorten(days: Sequence[str]) -> str:
    return ", ".join(days[:5]) + (f" and {len(days) - 5} more" if len(days) > 5 else "")
