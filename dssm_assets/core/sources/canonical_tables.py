"""Contracts of the three source tables after normalisation."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, ITEM_ID, REQUEST_ID, USER_ID
from dssm_assets.core.schema import ColumnSpec, TableSpec

EVENT_TIME: Final = "event_time"
"""Raw time column of a log, of any type; normalisation converts it to `event_time_ms`."""

USER_TABLE: Final = TableSpec(
    name="user_table",
    grain="one row per user_id, as the source states it on the day",
    key=(USER_ID,),
    columns=(ColumnSpec(USER_ID, None, "the user, int64 or string as in the source"),),
    extra={"*": "attribute of the user, as the source states it"},
)

ITEM_TABLE: Final = TableSpec(
    name="item_table",
    grain="one row per item_id, as the source states it on the day",
    key=(ITEM_ID,),
    columns=(ColumnSpec(ITEM_ID, None, "the item, int64 or string as in the source"),),
    extra={"*": "attribute of the item, as the source states it"},
)

BEHAVIOR_TABLE: Final = TableSpec(
    name="behavior_table",
    grain="one row per thing a user did to an item",
    key=(EVENT_TIME_MS, USER_ID, ITEM_ID, EVENT),
    columns=(
        ColumnSpec(REQUEST_ID, pa.string(), "Request that showed the item; null where the log has none.", is_nullable=True),
        ColumnSpec(USER_ID, None, "The user who acted."),
        ColumnSpec(ITEM_ID, None, "The item that was acted on."),
        ColumnSpec(EVENT, pa.string(), "Kind of behavior, one of events.funnel."),
        ColumnSpec(EVENT_TIME_MS, pa.int64(), "When, in milliseconds since 1970-01-01 UTC."),
    ),
    extra={"*": "value or context column of the log, as the source states it"},
)
