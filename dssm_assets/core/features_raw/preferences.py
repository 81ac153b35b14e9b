"""Preferences of users: counts of a user's positive events, by attribute value of the items, within the preference window.

The state of day D has one row per (user_id, attribute, value) with a count above 0, ordered by this key. It counts the
positive events on days D-preference_days+1 to D with items of this value. Items without a value are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.columns import COUNT, EVENT, USER_ID, VALUE
from dssm_assets.core.config.features import PREFERENCE_TOP
from dssm_assets.core.features_raw.activity import window_sign
from dssm_assets.core.features_raw.local_time import QueryDay
from dssm_assets.core.features_raw.plan import ATTRIBUTE, preference

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
PREFERENCE_KEY = (USER_ID, ATTRIBUTE, VALUE)


def roll_preferences(
    log: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    preference_days: int,
    preference_columns: Sequence[str],
    positive_events: Sequence[str],
) -> ibis.Table:
    """Returns the preference state of day `ds`. One group-by sums the rows of the log and of the previous state.

    Args:
        log: behavior with a text column `ds`. With `previous`: the day itself and the day that just left the window. Without:
            all days up to `ds`.
        previous: state of the day before.
        preference_columns: item attributes, at least one.
    """
    sign = window_sign(log, ds, preference_days, is_rolled=previous is not None)
    positive = log.mutate(**{COUNT: sign}).filter(log[EVENT].isin(positive_events), sign != 0)
    parts = [
        positive.filter(positive[name].notnull()).select(
            USER_ID,
            **{ATTRIBUTE: ibis.literal(name, type="string"), VALUE: positive[name].cast("string"), COUNT: positive[COUNT]},
        )
        for name in preference_columns
    ]
    if previous is not None:
        parts.append(previous.select(*PREFERENCE_KEY, COUNT))
    rows = ibis.union(*parts, distinct=False) if len(parts) > 1 else parts[0]
    counts = rows.group_by(PREFERENCE_KEY).agg(**{COUNT: rows[COUNT].sum()})
    return counts.filter(counts[COUNT] != 0).order_by(PREFERENCE_KEY)


def collect_preferences(preferences: ibis.Table, *, attributes: Sequence[str]) -> ibis.Table:
    """Returns one row per user of the state. Column {attribute}_preference lists structs of value and count, unordered, or is null."""
    entry = ibis.struct({VALUE: preferences[VALUE], COUNT: preferences[COUNT]})
    lists = {preference(name): entry.collect(where=preferences[ATTRIBUTE] == name) for name in attributes}
    return preferences.group_by(USER_ID).agg(**lists)


def order_preferences(rows: Rows, *, attributes: Sequence[str], top: int = PREFERENCE_TOP) -> Rows:
    """Replaces the structs of `collect_preferences` by ordered lists of "value:count".

    A list is ordered by count (largest first), then value, and has at most `top` entries. A user without values of an
    attribute has an empty list. A value may contain ":", so the count is the part after the last ":".
    """
    # Sorted here, because engines sort lists one by one; that takes twice as long as the rest of a day's wide table.
    for name in map(preference, attributes):
        ordered = _order_lists(ragged.combine_chunks(rows.column(name)), top)
        rows = rows.set_column(rows.schema.get_field_index(name), name, ordered)
    return rows


def _order_lists(lists: pa.Array, top: int) -> pa.Array:
    entries, offsets = ragged.flatten(lists)
    values, counts = entries.field(VALUE).dictionary_encode(), entries.field(COUNT)
    rank = np.argsort(pc.sort_indices(values.dictionary))[values.indices]
    # Count and value are one number, because each further sort key costs as much time as all else here.
    position = rank - counts.to_numpy() * len(values.dictionary)
    order = np.lexsort((position, ragged.row_of_value(offsets)))
    lengths = np.minimum(np.diff(offsets), top)
    kept = order[ragged.ranges(offsets[:-1], lengths)]
    texts = pc.binary_join_element_wise(values.take(kept).dictionary_decode(), counts.take(kept).cast(pa.string()), ":")
    return ragged.build_lists(texts, ragged.offsets_of(lengths))
