"""Features of a split's users and items, as indices of embedding tables: 0 is missing.

Users: gender, age bucket, occupation, the first three characters of the zip code, user id. Items: item id, genres, bucket of
the release year, and popularity: the logarithm of the number of interactions, and of numbers that decay over 7, 30 and 90
days up to the end of the training part, each in 20 quantile buckets.

Belongs here: columns of one split's users and items. Does not belong here: how towers read them (`quality_ours.py`).

Shapes: U users, I items, n values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Ints, Split

AGES = (18, 25, 35, 45, 50, 56)
YEARS = (1930, 1940, 1950, 1960, 1970, 1980, 1985, 1990, 1992, 1994, 1995, 1996, 1997, 1998, 1999, 2000)
DECAY_DAYS = (7, 30, 90)
COUNT_BUCKETS = 20
USER_ID, ITEM = "user", "item"
CODE = "code"
"""A second item id, for frozen embeddings in closed form."""
POPULARITY_PREFIX = "popularity"
"""Prefix of the popularity columns' names."""


@dataclass(frozen=True)
class Entities:
    """users.parquet and items.parquet of a data set."""

    users: pa.Table
    items: pa.Table


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of all users or all items.

    Attributes:
        name: name of the feature.
        values: indices below size, 0 = missing [n].
        offsets: row i has values[offsets[i] : offsets[i + 1]]; None: one value per row.
        size: number of indices, including 0.
    """

    name: str
    values: Ints
    offsets: Ints | None
    size: int

    def owners(self) -> Ints:
        """Returns the row of each value [n]."""
        if self.offsets is None:
            return np.arange(len(self.values))
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def arrow(self) -> pa.Array:
        """Returns the column as towers read it: int32, or lists of int32."""
        values = pa.array(self.values.astype(np.int32))
        return values if self.offsets is None else pa.ListArray.from_arrays(self.offsets.astype(np.int32), values)


def read_entities(folder: Path) -> Entities:
    """Returns users.parquet and items.parquet of a folder."""
    return Entities(pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet"))


def user_columns(split: Split, entities: Entities | None, *, with_id: bool = False) -> list[FeatureColumn]:
    """Returns the features of the split's users; without a table of users at most the id."""
    own = [identity(USER_ID, len(split.user_ids))] if with_id else []
    if entities is None:
        return own
    users = _rows_of(entities.users, "user_id", split.user_ids)
    age = users["age"].fill_null(0).to_numpy().astype(np.int64)
    columns = [
        _categories("gender", users["gender"]),
        FeatureColumn("age", np.digitize(age, AGES) + 1, None, len(AGES) + 2),
        _categories("occupation", users["occupation"]),
        _categories("zip3", pc.utf8_slice_codeunits(users["zip_code"], 0, 3)),
    ]
    return [*columns, *own]


def item_columns(
    split: Split, entities: Entities | None, *, with_counts: bool = True, with_recent: bool = True
) -> list[FeatureColumn]:
    """Returns the features of the split's items, the item id first.

    Args:
        split: items and their events.
        entities: the table of items; None: there is none.
        with_counts: popularity is a feature.
        with_recent: so are popularities of the last days; needs counts.
    """
    columns = [identity(ITEM, len(split.item_ids))]
    if entities is not None:
        items = _rows_of(entities.items, "item_id", split.item_ids)
        year = items["release_year"].fill_null(0).to_numpy().astype(np.int64)
        buckets = np.where(year == 0, 0, np.digitize(year, YEARS) + 1)
        columns += [_genres(items["genres"]), FeatureColumn("year", buckets, None, len(YEARS) + 2)]
    if with_counts:
        columns.append(_buckets(f"{POPULARITY_PREFIX}_ever", np.log(popularity(split) + 1.0)))
    if with_counts and with_recent:
        columns += [
            _buckets(f"{POPULARITY_PREFIX}_{days}d", np.log(recent_popularity(split, days) + 0.1)) for days in DECAY_DAYS
        ]
    return columns


def identity(name: str, count: int) -> FeatureColumn:
    """Returns an id feature: every row has its own value."""
    return FeatureColumn(name, np.arange(count) + 1, None, count + 1)


def popularity(split: Split) -> npt.NDArray[np.float64]:
    """Returns the number of users who interacted with each item [I]."""
    return np.bincount(split.item, minlength=len(split.item_ids)).astype(np.float64)


def recent_popularity(split: Split, days: float) -> npt.NDArray[np.float64]:
    """Returns the sum over each item's events of exp(-age / days), age from the last event of the training part [I]."""
    age_days = (split.time_s.max() - split.time_s) / SECONDS_PER_DAY
    return np.bincount(split.item, np.exp(-age_days / days), len(split.item_ids))


def _rows_of(table: pa.Table, key: str, ids: Ints) -> pa.Table:
    """Returns the rows of these ids, in their order; nulls for ids without a row."""
    places = pc.index_in(pa.array(ids), value_set=table[key].combine_chunks())
    return table.take(places)


def _categories(name: str, column: pa.ChunkedArray) -> FeatureColumn:
    texts = pc.fill_null(pc.cast(column, pa.string()), "").to_numpy(zero_copy_only=False).astype(str)
    distinct, codes = np.unique(texts, return_inverse=True)
    codes = codes + 1 - bool(distinct[0] == "")
    return FeatureColumn(name, codes.astype(np.int64), None, int(codes.max()) + 1)


def _genres(column: pa.ChunkedArray) -> FeatureColumn:
    lists = pc.split_pattern(pc.fill_null(column, "unknown"), "|").combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(str)
    distinct, codes = np.unique(flat, return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())])
    return FeatureColumn("genres", codes.astype(np.int64) + 1, offsets.astype(np.int64), len(distinct) + 1)


def _buckets(name: str, values: npt.NDArray[Any]) -> FeatureColumn:
    edges = np.unique(np.quantile(values, np.arange(1, COUNT_BUCKETS) / COUNT_BUCKETS))
    return FeatureColumn(name, np.digitize(values, edges) + 1, None, len(edges) + 2)
