"""Reads the segments of the evaluation: segments of users, tiers of items by popularity, categories of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.config.evaluation import Segment, SegmentKind
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.cold_items import choose_category_column
from dssm_assets.core.evaluation.segments import (
    Cuts,
    ItemPopularity,
    label_activity,
    label_column,
    label_tenure,
    popularity_from_counts,
)
from dssm_assets.steps.stored_interactions import count_user_events, find_event_days
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest

_Labels = tuple[dict[str, pa.Array], list[Manifest]]
"""Segment -> label of each user, and what was read for them."""


def read_cuts(workspace: Workspace, ds: str, user_ids: pa.Array, item_ids: pa.Array) -> tuple[Cuts, list[Manifest]]:
    """Returns the segments of these users and items, and what was read for them.

    Raises:
        ConfigError: naming every segment whose column user_table lacks.
    """
    segments = workspace.config.evaluation.segments
    labels: dict[str, pa.Array] = {}
    built_from: list[Manifest] = []
    for kind, label in _LABELLERS.items():
        of_kind = [segment for segment in segments if segment.kind is kind]
        if of_kind:
            found, manifests = label(workspace, ds, user_ids, of_kind)
            labels |= found
            built_from += manifests
    tier = None
    if any(segment.kind is SegmentKind.ITEM_POPULARITY for segment in segments):
        counts = workspace.need("negative_items", ds)
        tier = read_item_popularity(workspace, counts, item_ids).tier
        built_from.append(counts)
    return Cuts({segment.name: labels[segment.name] for segment in segments if segment.name in labels}, tier), built_from


def read_item_popularity(workspace: Workspace, negative_items: Manifest, item_ids: pa.Array | None = None) -> ItemPopularity:
    """Returns the positive events of each item in the window, over the given items (default: the day's corpus)."""
    table = workspace.tables.read(negative_items, [col.ITEM_ID, col.COUNT])
    return popularity_from_counts(combine_chunks(table.column(col.ITEM_ID)) if item_ids is None else item_ids, table)


def _label_columns(workspace: Workspace, ds: str, user_ids: pa.Array, segments: Sequence[Segment]) -> _Labels:
    user_table = workspace.need("user_table", day_before(ds))
    known = [column.name for column in user_table.columns]
    lacking = [segment for segment in segments if segment.user_column not in known]
    if lacking:
        expected = f"activity, tenure, item_popularity or a column of user_table: {', '.join(known)}"
        where = "configuration, key evaluation.segments, segment"
        raise ConfigError([Fault(f"{where} {one.name}", expected, f"by: {one.by}", "correct the name") for one in lacking])
    columns = list(dict.fromkeys([col.USER_ID, *(segment.user_column for segment in segments)]))
    table = workspace.tables.read(user_table, columns)
    ids = table.column(col.USER_ID)
    return {one.name: label_column(user_ids, ids, table.column(one.user_column), one) for one in segments}, [user_table]


def _label_activity(workspace: Workspace, ds: str, user_ids: pa.Array, segments: Sequence[Segment]) -> _Labels:
    history = find_event_days(workspace, ds).window
    events = count_user_events(workspace, history, user_ids)
    return {segment.name: label_activity(events, segment.activity_edges) for segment in segments}, history


def _label_tenure(workspace: Workspace, ds: str, user_ids: pa.Array, segments: Sequence[Segment]) -> _Labels:
    user_activity = workspace.need("user_activity", day_before(ds))
    activity = workspace.tables.read(user_activity, [col.USER_ID, col.EVENT])
    positive = pc.is_in(activity.column(col.EVENT), value_set=pa.array(workspace.config.events.positive))
    labels = label_tenure(user_ids, combine_chunks(activity.filter(positive).column(col.USER_ID)))
    return {segment.name: labels for segment in segments}, [user_activity]


_LABELLERS: Final[Mapping[SegmentKind, Callable[[Workspace, str, pa.Array, Sequence[Segment]], _Labels]]] = {
    SegmentKind.USER_COLUMN: _label_columns,
    SegmentKind.ACTIVITY: _label_activity,
    SegmentKind.TENURE: _label_tenure,
}


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
