"""Joins samples with feature rows of the previous day, and proves that no feature is newer.

A sample stores the row numbers of its user's and its item's features instead of the features. All samples of a user and a day
have the same user features, so copying these would cost more than all other work together.

Belongs here: the as-of look-up and the leak check. Does not belong here: feature generation, and the choice of the day; the
caller passes the feature tables of the previous day.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.features_raw.local_time import shift_day
from dssm_assets.core.samples.sample_tables import refuse_collisions


class FeatureRows:
    """Looks up the row number and the feature date of an id in one feature table."""

    def __init__(self, feature_table: pa.Table, key: str, where: str) -> None:
        """Indexes a feature table by the key `user_id` or `item_id`.

        Raises:
            SchemaError: ids are null or neither integers nor text.
            DuplicateKeyError: an id has two rows.
        """
        self._key = key
        self._index = IdIndex(feature_table.column(key), where=f"{where}, column {key}")
        self._dates = _encode_dates(feature_table.column(col.FEATURE_DATE))

    def find(self, sample: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Returns each sample's row (int32) and feature date (dictionary-encoded text); null for an unknown id."""
        if not len(self._index):
            return pa.nulls(sample.num_rows, pa.int32()), pa.nulls(sample.num_rows, pa.dictionary(pa.int32(), pa.string()))
        rows = self._index.lookup(sample.column(self._key), where=f"table sample, column {self._key}")
        found = ragged.mask_numbers(rows, rows < 0)
        return found, self._dates.take(found)


def add_feature_rows(sample: pa.Table, users: FeatureRows, items: FeatureRows, context: pa.Table) -> pa.Table:
    """Returns sample_fg: the sample with the row numbers and dates of its features, row by row.

    Columns: the columns of `sample`, user_feature_date, item_feature_date, user_row, item_row, context features.

    Args:
        users, items: look-ups in the feature tables of the previous day.
        context: encoded context features, one row per row of the sample.

    Raises:
        SchemaError: a context feature has the name of another column, or ids have different types.
    """
    (user_row, user_date), (item_row, item_date) = users.find(sample), items.find(sample)
    found = {
        col.USER_FEATURE_DATE: user_date,
        col.ITEM_FEATURE_DATE: item_date,
        col.USER_ROW: user_row,
        col.ITEM_ROW: item_row,
    }
    sources = {"the sample": sample.column_names, **{name: [name] for name in found}, "context features": context.column_names}
    refuse_collisions("table sample_fg", sources)
    columns = dict(zip(sample.column_names, sample.columns, strict=True)) | found
    return pa.table(columns | dict(zip(context.column_names, context.columns, strict=True)))


def count_uses(rows: pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], int]:
    """Returns the used rows of a feature table, ascending, the number of samples of each, and the number of samples without row."""
    used, counts = np.unique(combine_chunks(rows).drop_null().to_numpy(), return_counts=True)
    return used, counts, rows.null_count


@dataclass(frozen=True)
class LeakReport:
    """Counts of samples by their feature dates.

    Attributes:
        newest_user_feature_date: latest date among the user features, None if all users are new.
        newest_item_feature_date: latest date among the item features, None if all items are new.
        row_count: checked rows.
        leaking_row_count: rows with a user or item feature date later than the previous day.
        unknown_user_count: rows with a new user, without features (null date); not a leak.
        unknown_item_count: rows with a new item, without features (null date); not a leak.
    """

    newest_user_feature_date: str | None = None
    newest_item_feature_date: str | None = None
    row_count: int = 0
    leaking_row_count: int = 0
    unknown_user_count: int = 0
    unknown_item_count: int = 0

    @property
    def is_passed(self) -> bool:
        return self.leaking_row_count == 0


def combine_leak_reports(reports: Iterable[LeakReport]) -> LeakReport:
    """Merges the reports of a table's parts into one."""
    users, items, *counts = zip(*map(astuple, [LeakReport(), *reports]), strict=True)
    user, item = (max((date for date in dates if date is not None), default=None) for dates in (users, items))
    return LeakReport(user, item, *map(sum, counts))


def check_no_leak(sample_fg: pa.Table, ds: str) -> LeakReport:
    """Compares the feature dates of a day's samples with the day `ds`. A leak is reported, not raised.

    Example: ds is 2024-05-02, and one row has this user_feature_date: is_passed is False, leaking_row_count is 1.
    """
    allowed = shift_day(ds, -1)
    users, items = (_encode_dates(sample_fg.column(name)) for name in (col.USER_FEATURE_DATE, col.ITEM_FEATURE_DATE))
    user_leaks, item_leaks = (
        pc.fill_null(pc.greater(dates.dictionary, allowed).take(dates.indices), False) for dates in (users, items)
    )
    newest_user, newest_item = (pc.max(dates.dictionary.take(pc.unique(dates.indices))).as_py() for dates in (users, items))
    return LeakReport(
        newest_user_feature_date=newest_user,
        newest_item_feature_date=newest_item,
        row_count=sample_fg.num_rows,
        leaking_row_count=pc.sum(pc.or_(user_leaks, item_leaks)).as_py() or 0,
        unknown_user_count=users.null_count,
        unknown_item_count=items.null_count,
    )


def _encode_dates(dates: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Dictionary-encodes dates as text, so that comparisons run only on the few distinct dates."""
    return combine_chunks(dates.cast(pa.dictionary(pa.int32(), pa.string())))
