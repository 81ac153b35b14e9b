"""Reads the segments of the evaluation: segments of users, tiers of items by popularity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.config.evaluation import Segment, SegmentKind
from dssm_assets.core.errors import ConfigError, Fault
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
    labels = label_activity(count_user_events(workspace, history, user_ids), workspace.config.evaluation.segment_edges)
    return {segment.name: labels for segment in segments}, history


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
