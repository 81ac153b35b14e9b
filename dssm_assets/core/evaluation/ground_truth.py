"""The truth of an evaluation day: what each user took on it, and which of that could have been known before.

Belongs here: building the ground_truth table. Does not belong here: reading it for scoring (`truth.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import GT_IS_REPEAT, GT_IS_WARM, GT_ITEMS, IS_WARM_USER, ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.evaluation.ids import cast_ids, flat, positions, sorted_unique
from dssm_assets.core.retrieval.exclusions import Index
from dssm_assets.core.schema import ID_KINDS, is_id_type


def ground_truth(day_positives: pa.Table, window_pairs: pa.Table | Iterable[pa.Table]) -> pa.Table:
    """Returns one row per user with a positive event on the day, sorted by user_id.

    A user or an item is warm if it occurs anywhere in the window's positives; a pair is a repeat if it occurs there as a
    pair. Example: the day holds (u1, a), (u1, b), (u2, a), the window (u1, b), (u3, a). Then u1 -> items [a, b], warm
    [true, true], repeat [false, true], warm user; u2 -> items [a], warm [true], repeat [false], not a warm user.

    Args:
        day_positives: user_id, item_id of the day's positive events; a pair may occur several times.
        window_pairs: user_id, item_id of the window's positive events, also as several tables, of which one is held at a
            time; a pair may occur several times.

    Returns:
        user_id, gt_items list<id> (distinct, ascending), gt_is_warm list<bool>, gt_is_repeat list<bool>, is_warm_user.

    Raises:
        SchemaError: if a column is missing, is no id, or has nulls.
        InputError: if ids are numbers in one table and text in the other.
    """
    _check(day_positives, "day_positives")
    users = flat(day_positives.column(USER_ID))
    items = flat(day_positives.column(ITEM_ID))
    user_values, item_values = sorted_unique(users), sorted_unique(items)
    width = max(len(item_values), 1)
    pairs = np.unique(positions(users, user_values) * width + positions(items, item_values))
    pair_user, pair_item = pairs // width, pairs % width
    warm_user, warm_item = np.zeros(len(user_values), dtype=bool), np.zeros(width, dtype=bool)
    is_repeat = np.zeros(len(pairs), dtype=bool)
    for seen in [window_pairs] if isinstance(window_pairs, pa.Table) else window_pairs:
        seen_user, seen_item = _places(seen, USER_ID, user_values), _places(seen, ITEM_ID, item_values)
        known = (seen_user >= 0) & (seen_item >= 0)
        warm_user[seen_user[seen_user >= 0]] = True
        warm_item[seen_item[seen_item >= 0]] = True
        is_repeat |= np.isin(pairs, seen_user[known] * width + seen_item[known])
    counts = np.bincount(pair_user, minlength=len(user_values))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))

    def per_user(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values)

    return pa.table(
        {
            USER_ID: user_values,
            GT_ITEMS: per_user(item_values.take(pa.array(pair_item))),
            GT_IS_WARM: per_user(pa.array(warm_item[pair_item])),
            GT_IS_REPEAT: per_user(pa.array(is_repeat)),
            IS_WARM_USER: pa.array(warm_user),
        }
    )


def _places(window_pairs: pa.Table, column: str, values: pa.Array) -> Index:
    """Returns where the ids of a table of the window stand among the day's, -1 where they do not."""
    _check(window_pairs, "window_pairs")
    ids = cast_ids(flat(window_pairs.column(column)), values.type, f"window_pairs, column {column}")
    return positions(ids, values)


def _check(table: pa.Table, name: str) -> None:
    faults: list[Fault] = []
    for column in (USER_ID, ITEM_ID):
        where = f"{name}, column {column}"
        if column not in table.column_names:
            faults.append(Fault(where, "the column to exist", f"columns {', '.join(table.column_names)}", "add the column"))
        elif not is_id_type(table.column(column).type):
            faults.append(Fault(where, ID_KINDS, str(table.column(column).type), "cast the column"))
        elif table.column(column).null_count:
            faults.append(Fault(where, "no nulls", f"{table.column(column).null_count} nulls", "drop those rows in the source"))
    if faults:
        raise SchemaError(faults)
