"""Preferences of users: how many positive events they had with items of each attribute value in the preference window.

The state of day D has one row per (user_id, attribute, value) with a count other than 0, ordered by that key: the number of
positive events on days D-preference_days+1 to D with items of that value. Items without a value are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import Mask
from dssm_assets.core.columns import COUNT, EVENT, USER_ID, VALUE
from dssm_assets.core.features_raw.local_time import QueryDay, day_text, first_day_text
from dssm_assets.core.features_raw.plan import ATTRIBUTE, DS, preference
from dssm_assets.core.features_raw.signed_days import MOVE_WINDOW, check_step, move_rows, number_keys, union_all

PREFERENCE_KEY = (USER_ID, ATTRIBUTE, VALUE)


def roll_preferences(
    *,
    today: ibis.Table,
    leaving: ibis.Table | None,
    previous: ibis.Table | None,
    preference_columns: Sequence[str],
    positive_events: Sequence[str],
    is_change: bool = False,
) -> ibis.Table:
    """Returns the preference state of day D from that of D-1, by one union of signed contributions and one group-by.

    Args:
        today: behaviour of day D, with the attribute columns.
        leaving: behaviour of day D-preference_days; None if that day is before the first one.
        previous: state of day D-1 with the same preference_columns, positive_events and window; None only if D is the first
            day with data.
        preference_columns: item attributes, at least one.
        is_change: returns what the day adds to the previous state, which is not given, for `signed_days.merge_changes`.

    Raises:
        WindowIncompleteError: a day leaves although there is no previous state.
    """
    if not is_change:
        check_step("user_preferences", windows=[0], leaving={0: leaving}, previous=previous)
    parts = _contributions(today, preference_columns, positive_events, sign=1)
    if leaving is not None:
        parts += _contributions(leaving, preference_columns, positive_events, sign=-1)
    if previous is not None:
        parts.append(previous.select(*PREFERENCE_KEY, COUNT))
    return _reduce(union_all(parts))


def list_preference_changes(
    *,
    log: ibis.Table,
    moves: ibis.Table,
    previous: ibis.Table,
    ds: QueryDay,
    preference_columns: Sequence[str],
    positive_events: Sequence[str],
) -> ibis.Table:
    """Returns what `roll_preferences` adds on each of several days, for `signed_days.running_states`.

    Args:
        log: behaviour with a column `ds`: the days, and those that leave the window on one of them.
        moves: see `signed_days.list_moves`.
        previous: state of the day before the first one.
    """
    rows = move_rows(log, moves, list(dict.fromkeys([USER_ID, EVENT, *preference_columns])))
    sign = (rows[MOVE_WINDOW] == 0).ifelse(1, -1).cast("int64")
    moved = _contributions(rows, preference_columns, positive_events, sign=sign, by=[DS])
    before = previous.select(**{DS: day_text(ds)}, **{name: previous[name] for name in (*PREFERENCE_KEY, COUNT)})
    parts = union_all([*moved, before])
    return number_keys(parts.group_by(DS, *PREFERENCE_KEY).agg(**{COUNT: parts[COUNT].sum()}), PREFERENCE_KEY)


def build_preferences(
    behavior: ibis.Table,
    ds: QueryDay,
    *,
    preference_days: int,
    preference_columns: Sequence[str],
    positive_events: Sequence[str],
) -> ibis.Table:
    """Returns the preference state of day `ds` from the behaviour of the days of the window.

    Args:
        preference_columns: item attributes, at least one.
    """
    day = behavior[DS].cast("string")
    window = behavior.filter(day >= first_day_text(ds, preference_days), day <= day_text(ds))
    return _reduce(union_all(_contributions(window, preference_columns, positive_events, sign=1)))


def list_preferences(preferences: ibis.Table, *, attributes: Sequence[str], top: int, by: Sequence[str] = ()) -> ibis.Table:
    """Returns one row per user of the state, ordered, with {attribute}_preference, a list<string> of "value:count".

    With `by`, the column of days, the state is that of several days, and there is one row per day and user.

    A list is ordered by count (largest first), then value, and has at most `top` entries; a user without values of an
    attribute has an empty list. A value may contain ":", so the count is the part after the last one.
    """
    # One ordered list of each user and attribute takes half the time of ranking all rows in a window first.
    entry = preferences[VALUE] + ":" + preferences[COUNT].cast("string")
    order = [-preferences[COUNT], preferences[VALUE]]
    empty = ibis.literal([], type="array<string>")
    lists = {
        preference(name): entry.collect(where=preferences[ATTRIBUTE] == name, order_by=order).fill_null(empty)[:top]
        for name in attributes
    }
    return preferences.group_by(*by, USER_ID).agg(**lists).order_by(*by, USER_ID)


def rank_preferences(state: pa.Table, users: IdIndex, is_active: Mask, attribute: str, top: int) -> pa.Array:
    """Returns the list of each user for one attribute, list<string> [R], as `list_preferences` does.

    Args:
        state: some users' rows of the state, in its order; attributes and values dictionary-encoded.
        users: ids [R] in ascending order.
        is_active: bool [R], users with activity; the lists of others are empty.
    """
    state = state.unify_dictionaries().combine_chunks()
    attributes = ragged.combine_chunks(state.column(ATTRIBUTE))
    rows = state
    if attributes.dictionary.to_pylist() != [attribute]:
        rows = state.filter(pc.equal(attributes.indices, pc.index(attributes.dictionary, attribute)))
    runs = pc.run_end_encode(ragged.combine_chunks(rows.column(USER_ID)))
    places = users.lookup(runs.values).astype(np.int64)
    user = np.repeat(np.where(np.append(is_active, False)[places], places, -1), np.diff(runs.run_ends.to_numpy(), prepend=0))
    if not (is_listed := user >= 0).all():
        user, rows = user[is_listed], rows.filter(pa.array(is_listed))
    counts, values = rows.column(COUNT).to_numpy(), ragged.combine_chunks(rows.column(VALUE))
    base = counts.max(initial=0) + 1
    # The state has a user's values in ascending order, in which a stable sort leaves those with equal counts.
    order = np.argsort(user * base - counts, kind="stable")
    lengths = np.bincount(user, minlength=len(users))
    rank = np.arange(len(order)) - np.repeat(ragged.offsets_of(lengths)[:-1], lengths)
    kept = order[rank < top]
    pairs = pa.array(values.indices.to_numpy()[kept].astype(np.int64) * base + counts[kept]).dictionary_encode()
    value, count = np.divmod(pairs.dictionary.to_numpy(), base)
    texts = pc.binary_join_element_wise(values.dictionary.take(pa.array(value)), pa.array(count).cast(pa.string()), ":")
    return ragged.build_lists(texts.take(pairs.indices), ragged.offsets_of(np.minimum(lengths, top)))


def _contributions(
    rows: ibis.Table, preference_columns: Sequence[str], positive_events: Sequence[str], *, sign: Any, by: Sequence[str] = ()
) -> list[ibis.Table]:
    positive = rows.filter(rows[EVENT].isin(list(positive_events)))
    parts = []
    for name in preference_columns:
        known = positive.filter(positive[name].notnull())
        columns = {
            ATTRIBUTE: ibis.literal(name, type="string"),
            VALUE: known[name].cast("string"),
            COUNT: ibis.literal(sign, type="int64") if isinstance(sign, int) else sign,
        }
        parts.append(known.select(*by, USER_ID, **columns))
    return parts


def _reduce(parts: ibis.Table) -> ibis.Table:
    counts = parts.group_by(PREFERENCE_KEY).agg(**{COUNT: parts[COUNT].sum()})
    # A negative count means that a past day was rewritten: it is kept, so that the check finds it.
    return counts.filter(counts[COUNT] != 0).order_by(PREFERENCE_KEY)
