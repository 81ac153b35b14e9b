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
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, offsets_of, ranges, repeat_rows
from dssm_assets.core.channels.weights_table import to_table
from dssm_assets.core.evaluation.baselines.fit_data import FitData, recent_items
from dssm_assets.core.evaluation.baselines.neighbors import UserItems
from dssm_assets.core.evaluation.evaluation_tables import MERGED
from dssm_assets.core.evaluation.interactions import Interactions, interactions_of_events
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ItemChannelColumn, OwnItemColumn
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.steps.channels import read_merges, shared_arrays
from dssm_assets.steps.scoring import read_fit_data
from dssm_assets.steps.served_vectors import BundleInputs
from dssm_assets.steps.stored_interactions import find_event_days
from dssm_assets.steps.workspace import Workspace, day_before, start_of_day_ms, window_days
from dssm_assets.storage.local_files import ScratchArrays, write_arrow
from dssm_assets.storage.manifest import Manifest

BATCH_USERS: Final = 8192


def write_channels(
    workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, items: IdIndex, scratch: ScratchArrays, folder: Path
) -> bool:
    """Writes the files of the channels, if they are switched on; returns whether they are.

    Args:
        history: of all users, up to the end of the bundle's day.
        items: of the bundle, by row.
        scratch: makes large arrays.
    """
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
    shared = shared_arrays(_fit_data(workspace, inputs, history, items, scratch))
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
    user_ids = combine_chunks(workspace.tables.read(inputs.users, [col.USER_ID]).column(0))
    write_arrow(folder / BundleFile.OWN_ITEMS, _OWN_SCHEMA, _own_items(history, user_ids, len(items)))
    return True


def _fit_data(
    workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, items: IdIndex, scratch: ScratchArrays
) -> FitData:
    """Returns what `read_fit_data` does, of the day after the bundle's: from the events that its vectors were computed from.

    These do not tell their stored day: where it is another one than that of an event's time, the days are read once more.
    """
    if not all(_has_own_times(workspace, day) for day in inputs.history):
        days = find_event_days(workspace, inputs.next_day)
        return read_fit_data(workspace, days, items.ids, history.users.ids, scratch)
    settings, calendar, num_items = workspace.config.evaluation, workspace.config.calendar, len(items)
    since = [
        start_of_day_ms(window_days(inputs.next_day, days)[0], calendar.timezone)
        for days in (workspace.config.window.days, settings.recent_days)
    ]
    events = np.zeros((3, num_items), np.int64)
    lengths = [np.zeros(0, np.int64)]

    def read_items() -> Iterator[NDArray[np.int32]]:
        for starts, ends in _user_blocks(history):
            own = slice(starts[0], ends[-1])
            rows, times = history.item_index[own], history.event_time_ms[own]
            for place, first_ms in enumerate((*since, times.min(initial=0))):
                events[place] += np.bincount(rows[(rows >= 0) & (times >= first_ms)], minlength=num_items)
            counts, kept = recent_items(_read_block(history, starts, ends, num_items, since[0]))
            lengths.append(counts)
            yield kept

    kept_items = scratch.concat(read_items(), np.int32)
    return FitData(
        window_events=events[0],
        recent_events=events[1],
        history_events=events[2],
        user_items=UserItems(offsets_of(np.concatenate(lengths)), kept_items, num_items),
        read_history=lambda: (_read_block(history, *block, num_items) for block in _user_blocks(history)),
        settings=settings,
        allocate=scratch,
        seed=workspace.config.seed,
    )


def _has_own_times(workspace: Workspace, day: Manifest) -> bool:
    """Returns whether all events of a stored day of user history lie in that day; a source may file some under another one."""
    start_ms, end_ms = (start_of_day_ms(ds, workspace.config.calendar.timezone) for ds in (day.ds, day_before(day.ds, -1)))
    for batch in workspace.tables.batches(day, [col.EVENT_TIMES_MS]):
        times = pc.list_flatten(batch.column(0)).to_numpy()
        if times.min(initial=start_ms) < start_ms or times.max(initial=start_ms) >= end_ms:
            return False
    return True


def _user_blocks(history: HistoryCsr) -> Iterator[tuple[IntArray, IntArray]]:
    """Yields the bounds of the histories of all users, BATCH_USERS at a time."""
    for first in range(0, len(history.users), BATCH_USERS):
        block = slice(first, first + BATCH_USERS)
        yield history.starts[block], history.ends[block]


def _read_block(
    history: HistoryCsr, starts: IntArray, ends: IntArray, num_items: int, since_ms: int | None = None
) -> Interactions:
    """Returns the interactions of users, given the bounds of their histories, from a moment on."""
    places, owner = ranges(starts, ends - starts), repeat_rows(ends - starts)
    items, times = history.item_index[places], history.event_time_ms[places]
    if since_ms is not None and not (is_later := times >= since_ms).all():
        owner, items, times = owner[is_later], items[is_later], times[is_later]
    return interactions_of_events(owner, items, times, num_users=len(starts), num_items=num_items)


_OWN_SCHEMA: Final = pa.schema(
    [
        (OwnItemColumn.ROWS, pa.large_list(pa.int32())),
        (OwnItemColumn.COUNTS, pa.large_list(pa.int32())),
        (OwnItemColumn.LAST_TIMES_MS, pa.large_list(pa.int64())),
    ]
)


def _own_items(history: HistoryCsr, user_ids: pa.Array, num_items: int) -> Iterator[pa.RecordBatch]:
    """Yields a row per user of the bundle, in its order: rows of the user's items, ascending, their counts and last times."""
    for start in range(0, len(user_ids), BATCH_USERS):
        bounds = history.bounds(user_ids.slice(start, BATCH_USERS), where="table user_features_fg, column user_id")
        yield list_own_items(_read_block(history, *bounds, num_items))


def list_own_items(own: Interactions) -> pa.RecordBatch:
    """Returns a row of own_items.arrow per user."""
    columns = ((own.item_index, pa.int32()), (own.count, pa.int32()), (own.last_time_ms, pa.int64()))
    return pa.RecordBatch.from_arrays([_lists(own.indptr, pa.array(one, kind)) for one, kind in columns], schema=_OWN_SCHEMA)


def _lists(starts: np.ndarray, values: pa.Array) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(starts, np.int64)), values)
