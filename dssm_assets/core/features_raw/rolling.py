"""What rolling states share: the state of a day is that of the day before, plus the day, minus the days that leave a window."""

from __future__ import annotations

from typing import Any

import ibis

from dssm_assets.core.features_raw.local_time import QueryDay, day_text, first_day_text
from dssm_assets.core.features_raw.plan import DS


def window_sign(log: ibis.Table, ds: QueryDay, days: int, *, is_rolled: bool) -> Any:
    """Returns how often each row of the log counts in the window of `days` days that ends with day `ds`, as an int64 column.

    Args:
        log: has the day of each row in a text column `ds`.
        is_rolled: the rows are added to the state of the day before: 1 on the day itself, -1 on the day that has left the
            window since, else 0. Without such a state: 1 in the window, 0 before it.
    """
    if not is_rolled:
        return (log[DS] >= first_day_text(ds, days)).cast("int64")
    return (log[DS] == day_text(ds)).cast("int64") - (log[DS] == first_day_text(ds, days + 1)).cast("int64")
