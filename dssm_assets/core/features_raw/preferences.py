"""What users prefer: how often they took items of each attribute value within the preference window.

Belongs here: the rolling state and the lists made of it. Does not belong here: joining attributes to events
(`behavior.py`).

State of day D, one row per (user_id, attribute, value) with a count other than 0, ordered by that key: positive events
on days D-preference_days+1 to D whose item has that value. Items without a value are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis

from dssm_assets.core.columns import COUNT, EVENT, USER_ID, VALUE
from dssm_assets.core.features_raw.local_time import window_start
from dssm_assets.core.features_raw.plan import ATTRIBUTE, DS, preference
from dssm_assets.core.features_raw.signed_days import check_step, union_all

PREFERENCE_KEY = (USER_ID, ATTRIBUTE, VALUE)


def roll_preferences(
    *,
    today: ibis.Table,
    leaving: ibis.Table | None,
    previous: ibis.Table | None,
    preference_columns: Sequence[str],
    positive_events: Sequence[str],
) -> ibis.Table:
    """Returns the state of day D from that of D-1: one union of signed contributions, one group-by.

    Args:
        today: behaviour of day D, with the attribute columns.
        leaving: behaviour of day D-preference_days; None where that day lies before the first one.
        previous: state of D-1; None only when D is the first day with data. It must have been made with the same
            preference_columns, positive_events and window: after a change of those build from scratch.
        preference_columns: item attributes, at least one.
        positive_events: events that count.

    Raises:
        WindowIncompleteError: a day leaves though there is no previous state.
    """
    check_step("user_preferences", windows=[0], leaving={0: leaving}, previous=previous)
    parts = _contributions(today, preference_columns, positive_events, sign=1)
    if leaving is not None:
        parts += _contributions(leaving, preference_columns, positive_events, sign=-1)
    if previous is not None:
        parts.append(previous.select(*PREFERENCE_KEY, COUNT))
    return _reduce(union_all(parts))


def build_preferences(
    behavior: ibis.Table, ds: str, *, preference_days: int, preference_columns: Sequence[str], positive_events: Sequence[str]
) -> ibis.Table:
    """Returns the state of day `ds` from the behaviour of the window's days.

    Args:
        behavior: days as one table with a column `ds` (text or date); days outside the window are ignored.
        ds: the day.
        preference_days: the window.
        preference_columns: item attributes, at least one.
        positive_events: events that count.
    """
    day = behavior[DS].cast("string")
    window = behavior.filter(day >= window_start(ds, preference_days), day <= ds)
    return _reduce(union_all(_contributions(window, preference_columns, positive_events, sign=1)))


def list_preferences(preferences: ibis.Table, *, attributes: Sequence[str], top: int) -> ibis.Table:
    """Returns one row per user of the state, ordered: {attribute}_preference, list<string> of "value:count".

    A list is ordered by count (largest first), then value, and holds at most `top` entries; a user without a value of
    an attribute has an empty list. A value may itself contain ":", so the count is what follows the last one.
    """
    order = [preferences[COUNT].desc(), preferences[VALUE].asc()]
    rank = ibis.row_number().over(group_by=[USER_ID, ATTRIBUTE], order_by=order)
    ranked = preferences.mutate(entry_rank=rank, entry=preferences[VALUE] + ":" + preferences[COUNT].cast("string"))
    best = ranked.filter(ranked["entry_rank"] < top)
    empty = ibis.literal([], type="array<string>")
    lists = {
        preference(name): best["entry"].collect(where=best[ATTRIBUTE] == name, order_by=best["entry_rank"]).fill_null(empty)
        for name in attributes
    }
    return best.group_by(USER_ID).agg(**lists).order_by(USER_ID)


def _contributions(
    rows: ibis.Table, preference_columns: Sequence[str], positive_events: Sequence[str], *, sign: int
) -> list[ibis.Table]:
    positive = rows.filter(rows[EVENT].isin(list(positive_events)))
    parts = []
    for name in preference_columns:
        known = positive.filter(positive[name].notnull())
        columns = {
            ATTRIBUTE: ibis.literal(name, type="string"),
            VALUE: known[name].cast("string"),
            COUNT: ibis.literal(sign, type="int64"),
        }
        parts.append(known.select(USER_ID, **columns))
    return parts


def _reduce(parts: ibis.Table) -> ibis.Table:
    counted = parts.group_by(PREFERENCE_KEY).agg(**{COUNT: parts[COUNT].sum()})
    # A negative count can only mean a rewritten past day: it is kept for the check to find.
    return counted.filter(counted[COUNT] != 0).order_by(PREFERENCE_KEY)
