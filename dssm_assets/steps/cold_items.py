"""Reads which items are cold on a day, and their categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.cold_items import ColdItems, choose_category_column, order_by_category
from dssm_assets.steps.stored_interactions import count_item_events, find_window_history
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest


@dataclass(frozen=True)
class Categories:
    """The category of each item of a corpus.

    Attributes:
        values: int64 [I], -1 for items of none.
        column: of item_table; None: no column is a category.
        built_from: item_table.
    """

    values: IntArray
    column: str | None
    built_from: Manifest


def read_cold_items(workspace: Workspace, ds: str, item_ids: pa.Array) -> tuple[ColdItems, Manifest]:
    """Returns the items of a corpus without any event before a day, and the partition that their categories were read from."""
    corpus, history = IdIndex(item_ids), find_history_days(workspace, ds)
    items = np.flatnonzero(count_item_events(workspace, history, corpus) == 0)
    categories = read_categories(workspace, ds, workspace.config.evaluation.category_column, corpus)
    window_events = count_item_events(workspace, find_window_history(workspace, ds), corpus)
    order = order_by_category(items, categories.values, window_events)
    return ColdItems(items, order, categories.column), categories.built_from


def read_categories(workspace: Workspace, ds: str, column: str | None, corpus: IdIndex | None = None) -> Categories:
    """Returns the categories as of the day before a day.

    Args:
        column: of item_table; None: the one that is most like a category.
        corpus: the items; None: those of the day.

    Raises:
        ConfigError: there is no such column.
    """
    if corpus is None:
        corpus = IdIndex(workspace.tables.read(workspace.need("negative_items", ds), [col.ITEM_ID]).column(0).combine_chunks())
    source = workspace.need("item_table", day_before(ds))
    names = [one.name for one in source.columns]
    if column is not None and column not in names:
        where, remedy = "evaluation.category_column", "name one of them, or unset it"
        raise ConfigError(Fault(where, f"a column of item_table: {', '.join(names)}", column, remedy))
    items = workspace.tables.read(source, None if column is None else [col.ITEM_ID, column])
    chosen = choose_category_column(items, [col.ITEM_ID]) if column is None else column
    values = np.full(len(corpus), -1, np.int64)
    if chosen is None:
        return Categories(values, None, source)
    found = _first_values(combine_chunks(items.column(chosen))).dictionary_encode()
    codes = pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False)
    rows = corpus.lookup(cast_ids(combine_chunks(items.column(col.ITEM_ID)), corpus.ids.type, "item_table, column item_id"))
    values[rows[rows >= 0]] = codes[rows >= 0]
    return Categories(values, chosen, source)


def _first_values(values: pa.Array) -> pa.Array:
    """Returns the values; of lists their first entry."""
    if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
        return values
    is_filled = pc.greater(pc.fill_null(pc.list_value_length(values), 0), 0)
    return pc.list_element(pc.if_else(is_filled, values, pa.scalar([None], values.type)), 0)
