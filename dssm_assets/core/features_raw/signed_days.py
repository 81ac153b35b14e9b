"""Rolling states as sums of signed contributions: yesterday's state, plus today, minus the days that leave.

Belongs here: what the incremental states share, namely the check that a step has all its days, the union, and the check
of the result. Does not belong here: which columns a state has (`activity.py`, `preferences.py`).
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
    """Checks that a step can be computed: an entry per window, and nothing to take away where there is no state yet.

    Raises:
        WindowIncompleteError: with one fault per window that lacks its entry or has one too many.
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
    """Checks that yesterday's state has the columns that today's configuration needs.

    Raises:
        SchemaError: with one fault per missing column.
    """
    faults = [
        Fault(
            f"table {state}, column {name}", "the column in the state of the day before", "none", "build the state from scratch"
        )
        for name in columns
        if name not in previous.columns
    ]
    if faults:
        raise SchemaError(faults)


def union_all(tables: Sequence[ibis.Table]) -> ibis.Table:
    """Returns the rows of all tables, duplicates kept. All have the same columns."""
    first, *rest = tables
    return ibis.union(first, *rest, distinct=False) if rest else first


def check_no_negative(table: pa.Table | pa.RecordBatch, state: str) -> None:
    """Checks that no count of a state fell below zero: the sign that a day was rewritten after it had been added.

    Value sums may be negative (refunds), counts may not.

    Raises:
        SchemaError: with one fault per count column that has negative entries.
    """
    faults: list[Fault] = []
    for name in table.schema.names:
        if name != "count" and not name.startswith("count_"):
            continue
        negative = pc.sum(pc.less(table.column(name), 0)).as_py() or 0
        if negative:
            remedy = "a past day changed after it was counted: build the state of that day and all later ones again"
            faults.append(Fault(f"table {state}, column {name}", "counts of 0 or more", f"{negative} negative", remedy))
    if faults:
        raise SchemaError(faults)
