"""Interactions out of stored days of user history, over the users and the items of a scorer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.steps.training import history_days
from dssm_assets.steps.workspace import Workspace, window_days
from dssm_assets.storage.manifest import Manifest


def window_history(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user history that lie in the window of a day."""
    first = window_days(ds, workspace.config.window.days)[0]
    return [day for day in history_days(workspace, ds) if day.ds >= first]


def interactions(workspace: Workspace, past: Sequence[Manifest], scored: Any, *, is_theirs_alone: bool = False) -> Any:
    """Returns who took what how often in some stored days of user history, read one after the other.

    Args:
        workspace: holds the days.
        past: the days.
        scored: has the `user_ids` that are scored, ascending, and the `item_ids` of the corpus.
        is_theirs_alone: only the rows of users from the first of them to the last are read.
    """
    from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS, interactions_of_days

    users = scored.user_ids if is_theirs_alone else None
    empty = {col.USER_ID: pa.array([], scored.user_ids.type), col.ITEM_ID: pa.array([], scored.item_ids.type)}
    empty |= {col.COUNT: pa.array([], pa.int64()), LAST_EVENT_TIME_MS: pa.array([], pa.int64())}

    def days() -> Iterator[pa.Table]:
        yield pa.table(empty)
        yield from (_flat_day(workspace, manifest, users) for manifest in past)

    return interactions_of_days(days, scored.user_ids, scored.item_ids)


def users_between(workspace: Workspace, manifest: Manifest, columns: Sequence[str] | None, users: pa.Array) -> pa.Table:
    """Returns the rows of a table whose user is from the first to the last of these, which are ascending, in their order.

    Where the table is sorted by user only the row groups of those are read. Ids of another kind are left to be complained of:
    then all is read.
    """
    stored = workspace.tables.open(manifest)
    kind = stored.schema.field(col.USER_ID).type
    names = None if columns is None else list(columns)
    if not len(users) or pa.types.is_integer(kind) != pa.types.is_integer(users.type):
        return stored.to_table(columns=names)
    user, (low, high) = pc.field(col.USER_ID), (users[place].cast(kind) for place in (0, len(users) - 1))
    return stored.to_table(columns=names, filter=(user >= low) & (user <= high))


def _flat_day(workspace: Workspace, manifest: Manifest, users: pa.Array | None) -> pa.Table:
    from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS

    columns = [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS]
    if users is None:
        table = workspace.tables.read(manifest, columns).combine_chunks()
    else:
        table = users_between(workspace, manifest, columns, users).combine_chunks()
    items = table.column(col.ITEM_IDS)
    taken = pc.list_flatten(items)
    return pa.table(
        {
            col.USER_ID: table.column(col.USER_ID).take(pc.list_parent_indices(items)),
            col.ITEM_ID: taken,
            col.COUNT: pa.array(np.ones(len(taken), np.int64)),
            LAST_EVENT_TIME_MS: pc.list_flatten(table.column(col.EVENT_TIMES_MS)),
        }
    )
