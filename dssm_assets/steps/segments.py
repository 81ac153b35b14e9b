"""What the configured segments cut by, read for the evaluated users: their activity, tenure and columns, items' popularity.

All of it as of the day before the evaluation day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation_config import Segment, SegmentKind
from dssm_assets.steps.interactions import user_events, window_history
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest


def read_cuts(workspace: Workspace, ds: str, scorer: Any) -> tuple[Any, list[Manifest]]:
    """Returns the segments of the scorer's users and items, and what was read for them.

    Raises:
        ConfigError: naming every segment by a column that user_table lacks.
    """
    from dssm_assets.core.evaluation.segments import Cuts

    by_kind: dict[SegmentKind, list[Segment]] = {kind: [] for kind in SegmentKind}
    for segment in workspace.config.evaluation.segments:
        by_kind[segment.kind].append(segment)
    users: dict[str, pa.Array] = {}
    made_from: list[Manifest] = []
    readers = {
        SegmentKind.USER_COLUMN: _columns,
        SegmentKind.ACTIVITY: _activity,
        SegmentKind.TENURE: _tenure,
    }
    for kind, read in readers.items():
        if by_kind[kind]:
            found, manifests = read(workspace, ds, scorer, by_kind[kind])
            users |= found
            made_from += manifests
    tier = None
    if by_kind[SegmentKind.ITEM_POPULARITY]:
        popularity, counted = read_popularity(workspace, ds, scorer.item_ids)
        tier = popularity.tier
        made_from.append(counted)
    names = [segment.name for segment in workspace.config.evaluation.segments if segment.name in users]
    return Cuts({name: users[name] for name in names}, tier), made_from


def read_popularity(workspace: Workspace, ds: str, item_ids: pa.Array | None = None) -> tuple[Any, Manifest]:
    """Returns how often each item was taken in the window, over the given items (default: the day's corpus)."""
    from dssm_assets.core.evaluation.ids import flat
    from dssm_assets.core.evaluation.item_popularity import popularity_of

    counted = workspace.need("negative_items", ds)
    table = workspace.tables.read(counted, [col.ITEM_ID, col.COUNT])
    return popularity_of(flat(table.column(col.ITEM_ID)) if item_ids is None else item_ids, table), counted


_Found = tuple[dict[str, pa.Array], list[Manifest]]


def _activity(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.evaluation.segments import by_activity

    past = window_history(workspace, ds)
    labels = by_activity(user_events(workspace, past, scorer.user_ids), workspace.config.evaluation.segment_edges)
    return {segment.name: labels for segment in segments}, past


def _tenure(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.evaluation.ids import flat
    from dssm_assets.core.evaluation.segments import by_tenure

    eve = workspace.need("user_activity", day_before(ds))
    activity = workspace.tables.read(eve, [col.USER_ID, col.EVENT])
    positive = pc.is_in(activity.column(col.EVENT), value_set=pa.array(workspace.config.events.positive))
    labels = by_tenure(scorer.user_ids, flat(activity.filter(positive).column(col.USER_ID)))
    return {segment.name: labels for segment in segments}, [eve]


def _columns(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.evaluation.segments import by_column

    eve = workspace.need("user_table", day_before(ds))
    known = [column.name for column in eve.columns]
    lacking = [segment for segment in segments if segment.user_column not in known]
    if lacking:
        expected = f"activity, tenure, item_popularity or a column of user_table: {', '.join(known)}"
        where = "configuration, key evaluation.segments, segment"
        raise ConfigError([Fault(f"{where} {one.name}", expected, f"by: {one.by}", "correct the name") for one in lacking])
    table = workspace.tables.read(eve, list(dict.fromkeys([col.USER_ID, *(segment.user_column for segment in segments)])))
    ids = table.column(col.USER_ID)
    return {one.name: by_column(scorer.user_ids, ids, table.column(one.user_column), one) for one in segments}, [eve]
