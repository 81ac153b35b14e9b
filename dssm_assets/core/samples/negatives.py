"""Negatives: the corpus with each item's sampling weight, and hard negatives (items shown to a user without a positive event)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdCounts, IdIndex
from dssm_assets.core.arrays.ragged import combine_chunks, repeat_rows
from dssm_assets.core.config.pipeline import NegativeItems
from dssm_assets.core.errors import EmptyDayError, Fault
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.sample_tables import file_schema, refuse_collisions


def weigh_items(item_fg: pa.Table, positive_counts: pa.Table, config: NegativeItems) -> pa.Table:
    """Returns the corpus: one row per item of `item_fg`, sorted by item_id. The row number is the item_index.

    Positives on items that `item_fg` lacks are left out.

    Args:
        item_fg: item_features_fg of the day before the evaluation day: item_id, feature_date, features.
        positive_counts: item_id and count, from `count_positives`.

    Raises:
        EmptyDayError: there is no item.
        DuplicateKeyError: an item occurs twice.
        SchemaError: a feature is named weight or count, or the tables have ids of different types.
    """
    features = [name for name in item_fg.column_names if name not in {col.ITEM_ID, col.FEATURE_DATE}]
    own = [col.ITEM_ID, col.WEIGHT, col.COUNT]
    refuse_collisions("table negative_items", {"columns of its own": own, "features": features})
    if item_fg.num_rows == 0:
        raise EmptyDayError(Fault("table item_features_fg", "at least one item", "no rows", "check the item table of that day"))
    index = IdIndex(item_fg.column(col.ITEM_ID), where=f"table item_features_fg, column {col.ITEM_ID}")
    rows = index.lookup(positive_counts.column(col.ITEM_ID), where=f"positive counts, column {col.ITEM_ID}")
    counts = np.zeros(len(index), dtype=np.int64)
    counts[rows[rows >= 0]] = positive_counts.column(col.COUNT).to_numpy()[rows >= 0]
    weights = weights_of(counts, config)
    corpus = pa.table({col.ITEM_ID: index.ids, col.WEIGHT: weights, col.COUNT: counts})
    for name in features:
        corpus = corpus.append_column(item_fg.schema.field(name), item_fg.column(name))
    return corpus.take(pc.sort_indices(index.ids)).combine_chunks()


def weights_of(counts: npt.NDArray[Any], distribution: NegativeItems) -> npt.NDArray[np.float64]:
    """Returns (count + 1) ** alpha. The 1 lets items without positives be drawn, too.

    Example: counts 0 and 3, alpha 0.5: weights 1 and 2.
    """
    return np.asarray(np.power(counts + 1.0, distribution.alpha))


_DISTRIBUTION_KEY: Final = b"negative_items"
"""Key of the distribution in the metadata of items.arrow."""


def with_distribution(schema: pa.Schema, distribution: NegativeItems) -> pa.Schema:
    """Stores the distribution in the schema of a table of weights, so that weights for other counts can be computed later."""
    return schema.with_metadata({_DISTRIBUTION_KEY: distribution.model_dump_json().encode()})


def distribution_of(schema: pa.Schema) -> NegativeItems | None:
    """Returns the distribution stored by `with_distribution`, or None."""
    stored = (schema.metadata or {}).get(_DISTRIBUTION_KEY)
    return None if stored is None else NegativeItems.model_validate_json(stored, extra="ignore")


def count_positives(tables: Iterable[pa.Table]) -> pa.Table:
    """Counts each item's positive samples. Returns item_id, count int64, sorted by item_id.

    Args:
        tables: positive samples, one table per day, at least one. Only item_id is read, and one table is in memory at a time.
            A table may have no rows.

    Raises:
        SchemaError: item_id is null, is no id, or has another type than on the days before.
    """
    counts = IdCounts(f"table positive_sample, column {col.ITEM_ID}")
    for table in tables:
        counts.update(table.column(col.ITEM_ID))
    return pa.table(dict(zip((col.ITEM_ID, col.COUNT), counts.total(), strict=True)))


_TABLE = "table sample_fg"
HARD_NEGATIVE_COLUMNS = (col.USER_ID, col.ITEM_ID, col.EVENT, col.LABEL)
"""Columns of sample_fg read by `find_hard_negatives`."""
Pairs = npt.NDArray[np.int64]
"""Distinct pairs as user_index * number of items + item_index, ascending."""


def find_hard_negatives(
    days: Iterable[pa.Table], *, exposure_events: Sequence[str], item_index: IdIndex, history: HistoryCsr
) -> pa.Table:
    """Returns hard_negatives.arrow: user_index, item_index and the first day on which the item was shown.

    Each pair of user and item occurs once; the pairs ascend.

    A row with label 0 and an exposure event shows an item to a user. A pair is left out if the user has a positive event on the
    item on any day of the window or the history. Items outside the corpus and users without history are left out too.
    Example: a user sees items 1 and 2, and buys 2. Only the pair with item 1 remains.

    Args:
        days: sample_fg, one table per day of the window, oldest first. One day and the distinct pairs are in memory.
        exposure_events: events that show an item.

    Raises:
        SchemaError: ids have another type than in the corpus or the history.
    """
    pairs, first_day = np.zeros(0, np.int64), np.zeros(0, np.int32)
    positives = _history_pairs(history, len(item_index))
    for number, table in enumerate(days):
        positive_rows = table.filter(pc.equal(table.column(col.LABEL), 1))
        positives = np.union1d(positives, _find_pairs(positive_rows, item_index, history))
        shown = _find_pairs(select_exposures(table, exposure_events), item_index, history)
        first_day = np.concatenate([first_day, np.full(len(shown), number, np.int32)])
        pairs, first = np.unique(np.concatenate([pairs, shown]), return_index=True)
        first_day = first_day[first]
    is_kept = np.isin(pairs, positives, assume_unique=True, invert=True)
    users, items = np.divmod(pairs[is_kept], max(len(item_index), 1))
    arrays = [pa.array(users.astype(np.int32)), pa.array(items.astype(np.int32)), pa.array(first_day[is_kept])]
    return pa.Table.from_arrays(arrays, schema=file_schema(TrainSamplesFile.HARD_NEGATIVES))


def select_exposures(day: pa.Table, events: Collection[str]) -> pa.Table:
    """Keeps the rows of sample_fg that show an item: label 0 and one of these events."""
    event = combine_chunks(day.column(col.EVENT)).cast(pa.string())
    is_shown = pc.and_(pc.equal(day.column(col.LABEL), 0), pc.is_in(event, value_set=pa.array(sorted(events), pa.string())))
    return day.filter(is_shown)


def _find_pairs(table: pa.Table, item_index: IdIndex, history: HistoryCsr) -> Pairs:
    items = item_index.lookup(table.column(col.ITEM_ID), where=f"{_TABLE}, column {col.ITEM_ID}").astype(np.int64)
    users = history.users.lookup(table.column(col.USER_ID), where=f"{_TABLE}, column {col.USER_ID}").astype(np.int64)
    is_known = (items >= 0) & (users >= 0)
    return np.unique(users[is_known] * len(item_index) + items[is_known])


def _history_pairs(history: HistoryCsr, num_items: int) -> Pairs:
    users = repeat_rows(history.ends - history.starts)
    is_inside = history.item_index >= 0
    return np.unique(users[is_inside] * num_items + history.item_index[is_inside])
