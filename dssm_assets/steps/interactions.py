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


def interactions(workspace: Workspace, past: Sequence[Manifest], scorer: Any) -> Any:
    """Returns who took what how often in some stored days of user history, read one after the other."""
    from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS, interactions_of_days

    empty = {col.USER_ID: pa.array([], scorer.user_ids.type), col.ITEM_ID: pa.array([], scorer.item_ids.type)}
    empty |= {col.COUNT: pa.array([], pa.int64()), LAST_EVENT_TIME_MS: pa.array([], pa.int64())}

    def days() -> Iterator[pa.Table]:
        yield pa.table(empty)
        yield from (_flat_day(workspace, manifest) for manifest in past)

    return interactions_of_days(days, scorer.user_ids, scorer.item_ids)


def _flat_day(workspace: Workspace, manifest: Manifest) -> pa.Table:
    from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS

    table = workspace.tables.read(manifest, [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS]).combine_chunks()
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
