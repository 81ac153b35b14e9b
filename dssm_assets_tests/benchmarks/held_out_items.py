"""Training data without the events of some items, as if these had come to the corpus after the last event.

What towers recommend of such items says how well they know an item before anybody has interacted with it: on a single day only few
items are new, and the others cannot show it.

Belongs here: the tables of a window without these events. Does not belong here: fitting (`core/training/loop.py`) and scoring (`core/training/validation.py`).

Letters: I items, U users, n events.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, Mask, offsets_of
from dssm_assets.core.samples.sample_tables import HISTORY_END, HISTORY_START, ITEM_INDEX


def choose_items(events: IntArray, frac: float, seed: int) -> Mask:
    """Returns which items are held out: this fraction of those with an event, at random, bool [I]."""
    known = np.flatnonzero(events > 0)
    chosen = np.random.default_rng(seed).choice(known, round(frac * len(known)), replace=False)
    is_held_out = np.zeros(len(events), np.bool_)
    is_held_out[chosen] = True
    return is_held_out


def count_events(tables: Mapping[str, pa.Table]) -> IntArray:
    """Returns the events of each item in all histories [I].

    Args:
        tables: argument of `TrainData` -> table.
    """
    items = tables["history"].column(ITEM_INDEX).to_numpy()
    return np.bincount(items[items >= 0], minlength=tables["items"].num_rows).astype(np.int64)


def hold_out_items(tables: Mapping[str, pa.Table], is_held_out: Mask) -> dict[str, pa.Table]:
    """Returns the tables without the samples and events of some items.

    A held-out item has the features of an item without events: where all items that never had one agree, their value, which is the
    case for ids outside the vocabulary and for statistics; elsewhere its own. Statistics of users are left as they are.

    By hand: a user has the events a, b, a. Without a, the history is b; a sample whose history ended after the second event ends
    after the first.

    Args:
        tables: argument of `TrainData` -> table; not changed.
        is_held_out: bool [I]. At least one other item never had an event.
    """
    history, users, samples, items = (tables[name] for name in ("history", "users", "samples", "items"))
    item = history.column(ITEM_INDEX).to_numpy()
    is_kept = (item < 0) | ~is_held_out[np.maximum(item, 0)]
    place = offsets_of(is_kept.astype(np.int64))  # of each event in the new history [n + 1]
    is_cold = count_events(tables) == 0
    return {
        **tables,
        "history": history.filter(pa.array(is_kept)),
        "users": _move(_move(users, HISTORY_START, place), HISTORY_END, place),
        "samples": _move(samples.filter(pa.array(~is_held_out[samples.column(ITEM_INDEX).to_numpy()])), HISTORY_END, place),
        "items": _without_events(items, is_held_out, is_cold),
    }


def _move(table: pa.Table, column: str, place: IntArray) -> pa.Table:
    position = table.schema.get_field_index(column)
    return table.set_column(position, table.schema.field(column), pa.array(place[table.column(column).to_numpy()]))


def _without_events(items: pa.Table, is_held_out: Mask, is_cold: Mask) -> pa.Table:
    for position, field in enumerate(items.schema):
        if pa.types.is_nested(field.type):
            continue
        values = items.column(position).to_numpy()
        of_cold = np.unique(values[is_cold])
        if len(of_cold) == 1:
            changed = np.where(is_held_out, of_cold[0], values).astype(values.dtype)
            items = items.set_column(position, field, pa.array(changed))
    return items
