"""What a serving bundle holds for its channels: users' own items, neighbours and counts of items, the weights of the merge.

All as of the end of the bundle's day, like its vectors; the weights are those that were evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.channels.weights_table import to_table
from dssm_assets.core.evaluation.evaluation_tables import MERGED
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ItemChannelColumn, OwnItemColumn
from dssm_assets.steps.channels import read_merges, shared_arrays
from dssm_assets.steps.scoring import read_fit_data
from dssm_assets.steps.served_vectors import BundleInputs, BundleItems
from dssm_assets.steps.stored_interactions import read_interactions_of_users
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.local_files import ScratchArrays, write_arrow

BATCH_USERS: Final = 8192


def write_channels(workspace: Workspace, inputs: BundleInputs, items: BundleItems, folder: Path) -> bool:
    """Writes the files of the channels, if they are switched on; returns whether they are."""
    settings = workspace.config.channels
    if not settings.is_enabled:
        return False
    merges, _ = read_merges(workspace, inputs.ds)
    content = {
        "version": CHANNELS_VERSION,
        "now_ms": inputs.end_ms(workspace.config.calendar.timezone),
        "depths": {str(name): depth for name, depth in settings.depths.items()},
        "weights": to_table([merge for merge in merges if merge.name == MERGED]).to_pylist(),
    }
    (folder / BundleFile.CHANNELS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    stored = workspace.tables.read(inputs.users, [col.USER_ID]).column(0)
    user_ids = combine_chunks(stored)
    with workspace.tables.partitions.staging() as scratch:
        data = read_fit_data(workspace, inputs.next_day, items.index.ids, user_ids, ScratchArrays(scratch))
        shared = shared_arrays(data)
        neighbors = pa.table(
            {
                ItemChannelColumn.WINDOW_EVENTS: pa.array(shared["window_events"], pa.int64()),
                ItemChannelColumn.RECENT_EVENTS: pa.array(shared["recent_events"], pa.int64()),
                ItemChannelColumn.HISTORY_EVENTS: pa.array(shared["history_events"], pa.int64()),
                ItemChannelColumn.WINDOW_USERS: pa.array(shared["window_users"], pa.int64()),
                ItemChannelColumn.NEIGHBORS: _lists(shared["starts"], pa.array(shared["items"], pa.int32())),
                ItemChannelColumn.SIMILARITIES: _lists(shared["starts"], pa.array(shared["similarities"], pa.float64())),
            }
        )
        write_arrow(folder / BundleFile.ITEM_CHANNELS, neighbors.schema, neighbors.combine_chunks().to_batches())
    write_arrow(folder / BundleFile.OWN_ITEMS, _OWN_SCHEMA, _own_items(workspace, inputs, items, user_ids))
    return True


_OWN_SCHEMA: Final = pa.schema(
    [
        (OwnItemColumn.ROWS, pa.large_list(pa.int32())),
        (OwnItemColumn.COUNTS, pa.large_list(pa.int32())),
        (OwnItemColumn.LAST_TIMES_MS, pa.large_list(pa.int64())),
    ]
)


def _own_items(workspace: Workspace, inputs: BundleInputs, items: BundleItems, user_ids: pa.Array) -> Iterator[pa.RecordBatch]:
    """Yields a row per user of the bundle, in its order: rows of the user's items, ascending, their counts and last times."""
    for start in range(0, len(user_ids), BATCH_USERS):
        users = user_ids.slice(start, BATCH_USERS)
        own: Interactions = read_interactions_of_users(workspace, inputs.history, users, items.index)
        yield list_own_items(own)


def list_own_items(own: Interactions) -> pa.RecordBatch:
    """Returns a row of own_items.arrow per user."""
    columns = ((own.item_index, pa.int32()), (own.count, pa.int32()), (own.last_time_ms, pa.int64()))
    return pa.RecordBatch.from_arrays([_lists(own.indptr, pa.array(one, kind)) for one, kind in columns], schema=_OWN_SCHEMA)


def _lists(starts: np.ndarray, values: pa.Array) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(starts, np.int64)), values)
