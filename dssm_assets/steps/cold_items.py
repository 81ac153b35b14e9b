"""Reads the categories of items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.cold_items import choose_category_column
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


class Categories(NamedTuple):
    """The category of each item of a corpus."""

    values: IntArray
    """int64 [I], -1 for items without one."""
    column: str | None
    """Of item_table; None: no column is a category."""


def read_categories(workspace: Workspace, item_table: Manifest, column: str | None, corpus: IdIndex) -> Categories:
    """Returns the categories of the items of a corpus.

    Args:
        column: of item_table; None: the one that is most like a category.

    Raises:
        ConfigError: there is no such column.
    """
    names = [one.name for one in item_table.columns]
    if column is not None and column not in names:
        where, remedy = "evaluation.category_column", "name one of them, or unset it"
        raise ConfigError(Fault(where, f"a column of item_table: {', '.join(names)}", column, remedy))
    items = workspace.tables.read(item_table, None if column is None else [col.ITEM_ID, column])
    chosen = choose_category_column(items, [col.ITEM_ID]) if column is None else column
    values = np.full(len(corpus), -1, np.int64)
    if chosen is None:
        return Categories(values, None)
    found = _first_values(combine_chunks(items.column(chosen))).dictionary_encode()
    codes = pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False)
    rows = corpus.lookup(cast_ids(combine_chunks(items.column(col.ITEM_ID)), corpus.ids.type, "item_table, column item_id"))
    values[rows[rows >= 0]] = codes[rows >= 0]
    return Categories(values, chosen)


def _first_values(values: pa.Array) -> pa.Array:
    """Returns the values; of lists their first entry."""
    if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
        return values
    is_filled = pc.greater(pc.fill_null(pc.list_value_length(values), 0), 0)
    return pc.list_element(pc.if_else(is_filled, values, pa.scalar([None], values.type)), 0)
