"""A generated data set in the form of the real ones: 40 users in two groups, 60 items, 15 items per user.

Belongs here: the rows. Does not belong here: what is tested with them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY

USERS, ITEMS, ITEMS_PER_USER = 40, 60, 15
"""Even users have items of the first 30, odd users of the last 30."""


def write_tiny(folder: Path) -> None:
    """Writes users, items and behavior of two groups into a new folder."""
    rng = np.random.default_rng(3)
    rows = [
        (user, item + 30 * (user % 2), int(time))
        for user in range(USERS)
        for item, time in zip(
            rng.permutation(30)[:ITEMS_PER_USER], np.sort(rng.integers(0, 100 * SECONDS_PER_DAY, ITEMS_PER_USER)), strict=True
        )
    ]
    user, item, time = zip(*rows, strict=True)
    people = {
        "user_id": list(range(USERS)),
        "gender": ["M", "F"] * (USERS // 2),
        "age": [None, *range(18, 18 + USERS - 1)],
        "occupation": ["clerk", "smith"] * (USERS // 2),
        "zip_code": [f"{10000 + user}" for user in range(USERS)],
    }
    films = {
        "item_id": list(range(1, ITEMS)),  # item 0 has no row
        "genres": ["Drama|War" if item < 30 else "Comedy" for item in range(1, ITEMS)],
        "release_year": [None if item == 7 else 1930 + item for item in range(1, ITEMS)],
    }
    tables = {"behavior": {"user_id": user, "item_id": item, "event_time": time}, "users": people, "items": films}
    folder.mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
