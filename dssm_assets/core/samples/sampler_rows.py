"""What the samplers' text tables of a window hold: items, users, and edges of users and items, out of the pipeline's tables.

    items           every item of the corpus with its weight; attrs are its encoded features as text
    users           every user with a positive sample; weight: how many
    positive edges  every pair of a positive sample; weight: how many
    hard edges      every pair that was shown and not taken in the window; weight: how often shown

Belongs here: the rows. Does not belong here: the text (`sampler_tables`), hard negatives as rows of indices
(`hard_negatives`), which also leave out what was taken before the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.samples.id_index import comparable_ids, one_array
from dssm_assets.core.samples.specs import require_columns

EDGE: Final = (col.USER_ID, col.ITEM_ID)


def item_rows(negatives: pa.Table) -> tuple[pa.Table, list[str]]:
    """Returns item_id, weight and the features as text, and the features' names.

    Args:
        negatives: the corpus, `negative_items`. A missing value is an empty text, also among several;
            several values are joined by fg.json's separator.
    """
    fields = [name for name in negatives.column_names if name not in {col.ITEM_ID, col.WEIGHT, col.COUNT}]
    columns = {name: negatives.column(name) for name in (col.ITEM_ID, col.WEIGHT)}
    return pa.table({**columns, **{name: _text(one_array(negatives.column(name))) for name in fields}}), fields


def counted(days: Iterable[pa.Table], keys: Sequence[str]) -> pa.Table:
    """Returns the distinct keys, sorted, and as their weight float64 how many rows have them.

    Args:
        days: one table per day; one is held at a time, and the distinct keys.
        keys: user_id, item_id or both.
    """
    total: pa.Table | None = None
    for day in days:
        require_columns("table of samples", day.column_names, keys)
        ids = {key: comparable_ids(day.column(key), f"table of samples, column {key}") for key in keys}
        rows = pa.table({**ids, col.WEIGHT: pa.array(np.ones(day.num_rows))})
        held = rows if total is None else pa.concat_tables([total, rows])
        summed = held.group_by(list(keys)).aggregate([(col.WEIGHT, "sum")])
        total = summed.rename_columns([*keys, col.WEIGHT]).select([*keys, col.WEIGHT])
    if total is None:
        raise ValueError("counting needs at least one day")
    return total.sort_by([(key, "ascending") for key in keys])


def exposures(day: pa.Table, events: Sequence[str]) -> pa.Table:
    """Returns the rows of `sample_fg` that say that an item was shown: of label 0, and of one of these events."""
    event = day.column(col.EVENT).cast(pa.string())
    is_shown = pc.and_(pc.equal(day.column(col.LABEL), 0), pc.is_in(event, value_set=pa.array(sorted(events), pa.string())))
    return day.filter(is_shown)


def not_taken(shown: pa.Table, taken: pa.Table) -> pa.Table:
    """Returns the edges that are not among others, in their order."""
    left = shown.join(taken.select(list(EDGE)), list(EDGE), join_type="left anti")
    return left.select([*EDGE, col.WEIGHT]).sort_by([(key, "ascending") for key in EDGE])


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        texts = column.cast(pa.list_(pa.string()))
        filled = pa.ListArray.from_arrays(texts.offsets, pc.fill_null(texts.values, ""), mask=texts.is_null())
        column = pc.binary_join(filled, MULTI_SEPARATOR)
    return pc.fill_null(column.cast(pa.string()), "")
