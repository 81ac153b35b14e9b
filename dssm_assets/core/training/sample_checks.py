"""Checks of the tables of training at the border: numbers that point outside of what they refer to.

Belongs here: the checks of samples.arrow, and what they share with those of other tables. Does not belong here: types and
nulls (`core/models/table_view`), feature columns (`core/models/tower_input`), histories (`core/models/history`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.columns import WEIGHT
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.table_view import TableView

_DAYS = 1 << 20
"""More than a window can have: a number of a day above it is a date, or rubbish."""


def check_samples(keys: TableView, pointed: Mapping[str, tuple[int, int]], day: str) -> None:
    """Checks the columns of samples.arrow that are no features.

    Args:
        keys: the columns.
        pointed: column -> the first number that it may hold and the one after the last.
        day: the column of the day's number in the window.

    Raises:
        SchemaError: there is no sample; a number lies outside; a weight is not finite or not above 0.
    """
    if not keys.num_rows:
        raise SchemaError(Fault("table samples", "at least one sample", "0 rows", "choose a window with positive events"))
    faults = []
    for column, (low, end) in {**pointed, day: (0, _DAYS)}.items():
        faults += range_faults(keys, "samples", column, end, low)
    if not all(bool((np.isfinite(block) & (block > 0)).all()) for block in keys.blocks(WEIGHT)):
        faults.append(Fault("table samples, column weight", "finite weights above 0", "others", "drop or mend those samples"))
    if faults:
        raise SchemaError(faults)


def check_owner(user_index: npt.NDArray[Any], ends: IntArray, user_ends: IntArray) -> None:
    """Checks that no history reaches beyond its user's events.

    Raises:
        SchemaError: one does.
    """
    if not len(user_ends):
        return
    known = user_index >= 0
    beyond = known & (ends > user_ends[np.where(known, user_index, 0)])
    if beyond.any():
        got = f"{int(beyond.sum())} that reach into the next user's"
        where = "table samples, column history_end"
        raise SchemaError(Fault(where, "histories inside the user's own", got, "write samples, users and history together"))


def range_faults(view: TableView, table: str, column: str, end: int, low: int = 0) -> list[Fault]:
    """Returns a fault if a column, which has rows, holds a number outside of low .. end - 1."""
    blocks = list(view.blocks(column))
    least, most = min(int(block.min()) for block in blocks), max(int(block.max()) for block in blocks)
    if least >= low and most < end:
        return []
    remedy = "write samples, user_rows, item_rows, users and items together"
    return [Fault(f"table {table}, column {column}", f"{low} .. {end - 1}", f"{least} .. {most}", remedy)]


def whole(view: TableView, column: str) -> npt.NDArray[Any]:
    """Returns a column as one array: a view of a table in one chunk, else a copy."""
    blocks = list(view.blocks(column))
    if not blocks:
        return np.zeros(0, np.int64)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
