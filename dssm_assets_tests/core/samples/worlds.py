"""Small tables and a real bucketizer that the tests of this package share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def bucketize(feature: str, column: pa.Array) -> pa.Array:
    """Returns value + 1 for a known value and 0 for a missing one, in the shape of the column."""
    if pa.types.is_list(column.type):
        values = bucketize(feature, column.flatten())
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return pc.fill_null(pc.add(column, 1), 0).cast(pa.int32())


def history_day(
    rows: list[tuple[object, list[tuple[int, object, int | None]]]], id_type: pa.DataType | None = None
) -> pa.Table:
    """Returns a user_history_fg table from (user, [(time, item, brand), ...])."""
    kind = id_type or pa.int64()
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in rows], kind),
            "item_ids": pa.array([[item for _, item, _ in events] for _, events in rows], pa.list_(kind)),
            "event_times_ms": pa.array([[time for time, _, _ in events] for _, events in rows], pa.list_(pa.int64())),
            "seq__brand": pa.array([[brand for _, _, brand in events] for _, events in rows], pa.list_(pa.int64())),
        }
    )


def sample_table(users: list[object], items: list[object]) -> pa.Table:
    """Returns samples of the table `sample`, the time of each its place."""
    count = len(users)
    return pa.table(
        {
            "request_id": pa.nulls(count, pa.string()),
            "user_id": users,
            "item_id": items,
            "event": ["buy"] * count,
            "event_time_ms": list(range(count)),
            "label": pa.array([1] * count, pa.int8()),
            "hour": pa.array([0] * count, pa.int32()),
            "weekday": pa.array([0] * count, pa.int32()),
        }
    )
