"""Reads the data for the evaluation's segments: groups of users, tiers of items by popularity, categories of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.config.evaluation import Segment, SegmentKind
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.segments import (
    Cuts,
    ItemPopularity,
    choose_category_column,
    label_activity,
    label_column,
    label_tenure,
    popularity_from_counts,
)
from dssm_assets.steps.stored_interactions import count_user_events, find_event_days
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest


def read_cuts(workspace: Workspace, ds: str, user_ids: pa.Array, item_ids: pa.Array) -> tuple[Cuts, list[Manifest]]:
    """Returns the segments of these users and items, and the partitions read for them.

    Raises:
        ConfigError: names every segment with a column that user_table lacks.
    """
    settings, tables = workspace.config.evaluation, workspace.tables
    by_kind = {kind: [one for one in settings.segments if one.kind is kind] for kind in SegmentKind}
    labels: dict[str, pa.Array] = {}
    built_from: list[Manifest] = []
    tier = None
    if of_column := by_kind[SegmentKind.USER_COLUMN]:
        user_table = workspace.need("user_table", day_before(ds))
        _check_columns(of_column, [column.name for column in user_table.columns])
        table = tables.read(user_table, list(dict.fromkeys([col.USER_ID, *(one.user_column for one in of_column)])))
        for one in of_column:
            labels[one.name] = label_column(user_ids, table.column(col.USER_ID), table.column(one.user_column), one)
        built_from.append(user_table)
    if by_kind[SegmentKind.ACTIVITY]:
        window = find_event_days(workspace, ds).window
        events = count_user_events(workspace, window, user_ids)
        labels |= {one.name: label_activity(events, one.activity_edges) for one in by_kind[SegmentKind.ACTIVITY]}
        built_from += window
    if by_kind[SegmentKind.TENURE]:
        user_activity = workspace.need("user_activity", day_before(ds))
        rows = tables.read(user_activity, [col.USER_ID, col.EVENT])
        rows = rows.filter(pc.is_in(rows.column(col.EVENT), value_set=pa.array(workspace.config.events.positive)))
        tenure = label_tenure(user_ids, combine_chunks(rows.column(col.USER_ID)))
        labels |= {one.name: tenure for one in by_kind[SegmentKind.TENURE]}
        built_from.append(user_activity)
    if by_kind[SegmentKind.ITEM_POPULARITY]:
        counts = workspace.need("negative_items", ds)
        tier = read_item_popularity(workspace, counts, item_ids).tier
        built_from.append(counts)
    return Cuts({one.name: labels[one.name] for one in settings.segments if one.name in labels}, tier), built_from


def _check_columns(segments: Sequence[Segment], known: Sequence[str]) -> None:
    expected = f"activity, tenure, item_popularity or a column of user_table: {', '.join(known)}"
    where = "configuration, key evaluation.segments, segment"
    lacking = [one for one in segments if one.user_column not in known]
    ConfigError.raise_if(Fault(f"{where} {one.name}", expected, f"by: {one.by}", "correct the name") for one in lacking)


def read_item_popularity(workspace: Workspace, negative_items: Manifest, item_ids: pa.Array | None = None) -> ItemPopularity:
    """Returns the positive events of each item in the window. Default of `item_ids`: the day's corpus."""
    table = workspace.tables.read(negative_items, [col.ITEM_ID, col.COUNT])
    return popularity_from_counts(combine_chunks(table.column(col.ITEM_ID)) if item_ids is None else item_ids, table)


def read_categories(workspace: Workspace, item_table: Manifest, corpus: IdIndex) -> tuple[IntArray, str | None]:
    """Returns each item's category (-1 for none), and the column of item_table chosen as category. None if no column looks like one."""
    items = workspace.tables.read(item_table)
    chosen = choose_category_column(items, [col.ITEM_ID])
    values = np.full(len(corpus), -1, np.int64)
    if chosen is None:
        return values, None
    found = _first_values(combine_chunks(items.column(chosen))).dictionary_encode()
    codes = pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False)
    rows = corpus.lookup(cast_ids(combine_chunks(items.column(col.ITEM_ID)), corpus.ids.type, "item_table, column item_id"))
    values[rows[rows >= 0]] = codes[rows >= 0]
    return values, chosen


def _first_values(values: pa.Array) -> pa.Array:
    if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
        return values
    is_filled = pc.greater(pc.fill_null(pc.list_value_length(values), 0), 0)
    return pc.list_element(pc.if_else(is_filled, values, pa.scalar([None], values.type)), 0)
