"""The files of a serving bundle that its channels read, besides the users' own items: neighbours and counts of items, the merge.

All as of the end of the bundle's day, like its vectors; the weights are those that were evaluated.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.channels.weights_table import to_table
from dssm_assets.core.evaluation.evaluation_tables import MERGED
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ItemChannelColumn
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.steps.channels import read_merges, shared_arrays
from dssm_assets.steps.scoring import read_fit_data
from dssm_assets.steps.served_vectors import BundleInputs
from dssm_assets.steps.stored_interactions import find_event_days
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.local_files import ScratchArrays, write_arrow_table


def write_channels(
    workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, items: IdIndex, scratch: ScratchArrays, folder: Path
) -> None:
    """Writes channels.json and item_channels.arrow.

    Args:
        history: of all users, up to the end of the bundle's day.
        items: of the bundle, by row.
        scratch: makes large arrays.
    """
    merges, _ = read_merges(workspace, inputs.ds)
    content = {
        "version": CHANNELS_VERSION,
        "now_ms": inputs.end_ms(workspace.config.calendar.timezone),
        "depths": {str(name): depth for name, depth in workspace.config.channels.depths.items()},
        "weights": to_table([merge for merge in merges if merge.name == MERGED]).to_pylist(),
    }
    (folder / BundleFile.CHANNELS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shared = shared_arrays(
        read_fit_data(workspace, find_event_days(workspace, inputs.next_day), items.ids, history.users.ids, scratch)
    )
    starts = pa.array(shared["starts"], pa.int64())
    counts = (
        ItemChannelColumn.WINDOW_EVENTS,
        ItemChannelColumn.RECENT_EVENTS,
        ItemChannelColumn.HISTORY_EVENTS,
        ItemChannelColumn.WINDOW_USERS,
    )
    columns = {name: pa.array(shared[name], pa.int64()) for name in counts}
    columns[ItemChannelColumn.NEIGHBORS] = pa.LargeListArray.from_arrays(starts, pa.array(shared["items"], pa.int32()))
    columns[ItemChannelColumn.SIMILARITIES] = pa.LargeListArray.from_arrays(starts, pa.array(shared["similarities"]))
    write_arrow_table(folder / BundleFile.ITEM_CHANNELS, pa.table(columns))
