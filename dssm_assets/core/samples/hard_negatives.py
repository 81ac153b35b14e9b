"""Which items each user was shown in the window and did not take: the hard negatives.

Belongs here: their choice, as rows of hard_negatives.arrow. Does not belong here: drawing from them
(`core/models/samplers/hard`).

Letters: E pairs of a user and an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, one_array
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.sample_tables import hard_negatives_schema, require_columns

_TABLE = "table sample_fg"
COLUMNS = (col.USER_ID, col.ITEM_ID, col.EVENT, col.LABEL)
"""What is read of sample_fg."""
Pairs = npt.NDArray[np.int64]


def hard_negatives(
    days: Iterable[pa.Table], *, exposure_events: Sequence[str], item_index: IdIndex, history: HistoryCsr
) -> pa.Table:
    """Returns hard_negatives.arrow: user_index, item_index and the first day shown, sorted by user and item, each pair once.

    A pair is shown by a row of label 0 whose event is an exposure. Left out are the pairs that the user took, in the window
    or in the history, on whatever day; items outside the corpus; users without any history, who are in no sample.
    Example: shown 1, 2 and 2 again on day 3, and 2 taken: the pair with item 1, day 3.

    Args:
        days: sample_fg, one table per day of the window, the oldest first; one is held at a time, and the distinct pairs.
        exposure_events: events that mean: shown.
        item_index: the corpus.
        history: what users took.

    Raises:
        ConfigError: there is no exposure event.
        SchemaError: a column is missing, or ids are of another type than in the corpus or the history.
    """
    if not exposure_events:
        remedy = "name the event that means shown, or choose a sampler without hard negatives"
        raise ConfigError(Fault("configuration, key events.exposure", "an event: the sampler is a hard one", "none", remedy))
    events = pa.array(sorted(set(exposure_events)), pa.string())
    pairs, first_day = np.zeros(0, np.int64), np.zeros(0, np.int32)
    taken = _of_history(history, len(item_index))
    for number, table in enumerate(days):
        require_columns(_TABLE, table.column_names, COLUMNS)
        taken = np.union1d(taken, _pairs(table.filter(pc.equal(table.column(col.LABEL), 1)), item_index, history))
        is_shown = pc.and_(pc.equal(table.column(col.LABEL), 0), pc.is_in(_text(table.column(col.EVENT)), value_set=events))
        new = np.setdiff1d(_pairs(table.filter(is_shown), item_index, history), pairs, assume_unique=True)
        pairs, first_day = np.concatenate([pairs, new]), np.concatenate([first_day, np.full(len(new), number, np.int32)])
        order = np.argsort(pairs, kind="stable")
        pairs, first_day = pairs[order], first_day[order]
    is_kept = np.isin(pairs, taken, assume_unique=True, invert=True)
    users, items = np.divmod(pairs[is_kept], max(len(item_index), 1))
    arrays = [pa.array(users.astype(np.int32)), pa.array(items.astype(np.int32)), pa.array(first_day[is_kept])]
    return pa.Table.from_arrays(arrays, schema=hard_negatives_schema())


def _pairs(table: pa.Table, item_index: IdIndex, history: HistoryCsr) -> Pairs:
    """Returns the distinct pairs of known users and items as user_index * items + item_index, ascending."""
    items = item_index.lookup(table.column(col.ITEM_ID), where=f"{_TABLE}, column {col.ITEM_ID}").astype(np.int64)
    users = history.users.lookup(table.column(col.USER_ID), where=f"{_TABLE}, column {col.USER_ID}").astype(np.int64)
    is_known = (items >= 0) & (users >= 0)
    return np.unique(users[is_known] * len(item_index) + items[is_known])


def _of_history(history: HistoryCsr, num_items: int) -> Pairs:
    users = np.repeat(np.arange(len(history.users), dtype=np.int64), history.ends - history.starts)
    is_inside = history.item_index >= 0
    return np.unique(users[is_inside] * num_items + history.item_index[is_inside])


def _text(column: pa.ChunkedArray) -> pa.Array:
    return one_array(column).cast(pa.string())
