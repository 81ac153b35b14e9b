"""The window that an evaluation day learns from, as a table: which days, how many rows, which digests.

Belongs here: that table and the sentence that says whether it is whole. Does not belong here: reading the days.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from dssm_assets.core.schema import ColumnSpec, TableSpec

TRAINING_WINDOW: Final = TableSpec(
    "training_window",
    "one row per day of the window and table that is read over it",
    ("table", "day"),
    (
        ColumnSpec("table", pa.string(), "Table that is read over the window."),
        ColumnSpec("day", pa.string(), "Day of the window."),
        ColumnSpec("rows", pa.int64(), "Rows of that day; null if it was never materialized.", is_nullable=True),
        ColumnSpec("digest", pa.string(), "Digest of that day's content; null if it was never materialized.", is_nullable=True),
    ),
)


@dataclass(frozen=True)
class WindowReport:
    """Whether a window is whole, and what to do if not."""

    is_complete: bool
    sentence: str
    missing: Mapping[str, Sequence[str]]


def describe_window(
    found: Mapping[str, Mapping[str, tuple[int, str] | None]], first_day: str, feature_days: Collection[str]
) -> tuple[pa.Table, WindowReport]:
    """Returns the window's table and whether it is whole.

    Args:
        found: table -> day -> (rows, digest), None for a day without a partition.
        first_day: the first day there can be data for; earlier days can never be filled.
        feature_days: the days that have features. Samples need those of the day before, so filling starts after one.
    """
    rows = [
        {"table": table, "day": day, "rows": None if state is None else state[0], "digest": None if state is None else state[1]}
        for table, days in sorted(found.items())
        for day, state in sorted(days.items())
    ]
    schema = pa.schema([pa.field(column.name, column.type) for column in TRAINING_WINDOW.columns])
    missing = {
        table: lacking
        for table, days in sorted(found.items())
        if (lacking := [day for day, state in sorted(days.items()) if state is None])
    }
    return pa.Table.from_pylist(rows, schema=schema), WindowReport(
        not missing, _sentence(missing, first_day, feature_days, found), missing
    )


def _sentence(
    missing: Mapping[str, Sequence[str]],
    first_day: str,
    feature_days: Collection[str],
    found: Mapping[str, Mapping[str, tuple[int, str] | None]],
) -> str:
    if not missing:
        # Feature tables reach a day further back than the samples that point into them.
        days: list[str] = min([sorted(listed) for listed in found.values()], key=len)
        return f"all {len(days)} days from {days[0]} to {days[-1]} are materialized"
    lacking = sorted({day for days in missing.values() for day in days})
    before = [day for day in lacking if day < first_day]
    fillable = [day for day in lacking if day >= first_day]
    parts = [f"missing: {'; '.join(f'{table}: {_shorten(days)}' for table, days in missing.items())}."]
    if before:
        parts.append(
            f"{len(before)} days lie before calendar.start {first_day}: evaluate a later day or set window.days lower."
        )
    if fillable:
        eve = max((day for day in feature_days if first_day <= day < fillable[0]), default=None)
        start = first_day if eve is None else (dt.date.fromisoformat(eve) + dt.timedelta(days=1)).isoformat()
        parts.append(f"To fill them: dssm-assets materialize daily_tables --from {start} --to {fillable[-1]}")
    return " ".join(parts)


def _shorten(days: Sequence[str]) -> str:
    return ", ".join(days[:5]) + (f" and {len(days) - 5} more" if len(days) > 5 else "")
