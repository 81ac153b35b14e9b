"""The day's history of each user: the items of its positive events, by time.

Belongs here: one day's lists. Does not belong here: joining days into a sequence (the training samples and the
evaluation do that, each up to its own moment).
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis

from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, EVENT_TIMES_MS, ITEM_ID, ITEM_IDS, USER_ID


def user_history(behavior: ibis.Table, *, positive_events: Sequence[str], history_columns: Sequence[str]) -> ibis.Table:
    """Returns one row per user with a positive event on the day, ordered by user_id, with aligned lists.

    item_ids, event_times_ms and one list<string> per history column (an unknown attribute is a null entry) have one
    entry per positive event, ordered by (event_time_ms, item_id). Events that agree in both agree in every list too,
    since the history columns are attributes of the item: the lists have one possible order.
    """
    positive = behavior.filter(behavior[EVENT].isin(list(positive_events)))
    order = [positive[EVENT_TIME_MS], positive[ITEM_ID]]
    lists = {
        ITEM_IDS: positive[ITEM_ID].collect(order_by=order),
        EVENT_TIMES_MS: positive[EVENT_TIME_MS].collect(order_by=order),
    }
    for name in history_columns:
        # Without include_null an unknown attribute would drop out and shift the list against its item ids.
        lists[name] = positive[name].cast("string").collect(order_by=order, include_null=True)
    return positive.group_by(USER_ID).agg(**lists).order_by(USER_ID)
