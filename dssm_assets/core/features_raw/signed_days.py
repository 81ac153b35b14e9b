"""What rolling states share: the new state is the previous one, plus the day, minus the days that leave a window.

Here are the checks of the inputs and of the result of such a step; the states themselves are in `activity.py` and
`preferences.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError, WindowIncompleteError


def check_step(
    state: str, *, windows: Sequence[int], leaving: Mapping[int, ibis.Table | None], previous: ibis.Table | None
) -> None:
    """Checks that a step has an entry per window, and that no day leaves where there is no state yet.

    Raises:
        WindowIncompleteError: with one fault per window that has no entry, or has a day although there is no state.
    """
    faults = [
        Fault(f"{state}, window of {days} days", "the day that leaves it (None before the first day)", "no entry", "pass it")
        for days in windows
        if days not in leaving
    ]
    if previous is None:
        faults += [
            Fault(
                f"{state}, window of {days} days", "no day to leave on the first day", "a day", "build the state from scratch"
            )
            for days in windows
            if leaving.get(days) is not None
        ]
    if faults:
        raise WindowIncompleteError(faults)


def check_previous(state: str, previous: ibis.Table, columns: Sequence[str]) -> None:
    """Checks that the state of the previous day has the columns that the configuration needs.

    Raises:
        SchemaError: with one fault per missing column.
    """
    faults = [
        Fault(
            f"table {state}, column {name}",
            "the column in the state of the previous day",
            "none",
            "build the state from scratch",
        )
        for name in columns
        if name not in previous.columns
    ]
    if faults:
        raise SchemaError(faults)


def union_all(tables: Sequence[ibis.Table]) -> ibis.Table:
    """Returns the rows of all tables, which have the same columns, with duplicates."""
    first, *rest = tables
    return ibis.union(first, *rest, distinct=False) if rest else first


def check_no_negative(table: pa.Table | pa.RecordBatch, state: str) -> None:
    """Checks that no count of a state is negative, which means that a day was rewritten after it had been added.

    Sums of values may be negative (refunds).

    Raises:
        SchemaError: with one fault per count column with negative entries.
    """
    faults: list[Fault] = []
    for name in table.schema.names:
        if name != "count" and not name.startswith("count_"):
            continue
        negative = pc.sum(pc.less(table.column(name), 0)).as_py() or 0
        if negative:
            remedy = "a past day changed after it was counted: build the state of that day and of all later days again"
            faults.append(Fault(f"table {state}, column {name}", "counts of 0 or more", f"{negative} negative", remedy))
    if faults:
        raise SchemaError(faults)
