"""The log of shown items as parquet parts, one row per item of an answer.

A folder has `ds=YYYY-MM-DD/` (UTC day of the answers) with parts of about a second, renamed into place. A part of answers has
`kind` "answer"; a part of what a caller showed in their place (`POST /shown`) has `kind` "shown" and no scores.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

REQUEST_ID: Final = "request_id"
VARIANT: Final = "variant"
POSITION: Final = "position"


def part_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Returns the columns of a part; `position` counts from 1, `channels` are those that proposed the item."""
    return pa.schema(
        {
            "kind": pa.string(),
            "time_ms": pa.int64(),
            REQUEST_ID: pa.string(),
            "user_id": user_type,
            VARIANT: pa.string(),
            "bundle_id": pa.string(),
            POSITION: pa.int32(),
            "item_id": item_type,
            "score": pa.float64(),
            "channels": pa.list_(pa.string()),
        }
    )
