"""Reads what channels need from the stored days, and makes the channels and merged lists of some users.

Belongs here: from partitions to channels, as of the beginning of a day. Does not belong here: the step that fits the weights of
the merges (`channel_weights.py`), channels of a bundle (`serving/channels.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dssm_assets.core.channels.channel import Channel, NearestItems
from dssm_assets.core.channels.merge import BlockOfUsers, ChannelScorer, Merge, MergedScorer
from dssm_assets.core.channels.sources import OwnItems, SharedData, make_channels
from dssm_assets.core.channels.weights_table import CHANNEL_WEIGHTS, from_rows
from dssm_assets.core.config.channels import ChannelName, Channels
from dssm_assets.core.errors import Fault, SchemaError, remedy_of_missing
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.neighbors import csr_of
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


def shared_arrays(data: FitData) -> Arrays:
    """Returns, as arrays that other processes can open, what all users have in common, from the interactions of all users."""
    neighbors = data.frequent_neighbors
    return {
        "window_events": data.window_events,
        "recent_events": data.recent_events,
        "history_events": data.history_events,
        "window_users": np.bincount(data.user_items.items, minlength=data.user_items.num_items),
        "starts": neighbors.indptr,
        "items": neighbors.indices,
        "similarities": neighbors.data,
    }


def open_shared(arrays: Arrays) -> SharedData:
    """Returns the data of `shared_arrays`."""
    return SharedData(
        arrays["window_events"],
        arrays["recent_events"],
        arrays["history_events"],
        arrays["window_users"],
        csr_of(arrays["starts"], arrays["items"], arrays["similarities"]),
    )


def make_day_channels(
    settings: Channels, shared: SharedData, history: Interactions, num_users: int, model: NearestItems | None, now_ms: int
) -> tuple[Channel, ...]:
    """Returns the channels of the first num_users users of a history.

    Args:
        shared: as of `now_ms`.
        history: their interactions of all days before `now_ms`.
        model: the vectors of a model for these users, asked for a few users at a time (`KnownLists`); None: a day without vectors.
    """
    end = history.indptr[num_users]
    own = OwnItems(history.indptr[: num_users + 1], history.item_index[:end], history.count[:end], history.last_time_ms[:end])
    return make_channels(settings.depths, shared, own, model, now_ms)


def channel_scorers(channels: Sequence[Channel], merges: Sequence[Merge], shared: SharedData) -> list[Scorer]:
    """Returns the merged lists as scorers, then each channel alone except the vectors, which are the model."""
    users, order = BlockOfUsers(tuple(channels)), shared.popular_order
    merged: list[Scorer] = [MergedScorer(merge, users, order) for merge in merges]
    return merged + [ChannelScorer(one.name, users, order) for one in channels if one.name is not ChannelName.VECTORS]


def read_merges(workspace: Workspace, ds: str) -> tuple[list[Merge], list[Manifest]]:
    """Returns the merges of a day and the partition that holds them; nothing where channels are switched off.

    Raises:
        PartitionMissingError: the day has no weights.
        SchemaError: another version wrote them.
    """
    settings = workspace.config.channels
    if not settings.is_enabled:
        return [], []
    stored = workspace.need(CHANNEL_WEIGHTS.name, ds)
    table = workspace.tables.read(stored)
    if table.column_names != [column.name for column in CHANNEL_WEIGHTS.columns]:
        where, expected = f"{CHANNEL_WEIGHTS.name}, {ds}", "the columns of this version"
        remedy = f"{remedy_of_missing(CHANNEL_WEIGHTS.name, ds)}; then total_hit_rate"
        raise SchemaError(Fault(where, expected, ", ".join(table.column_names), remedy))
    return from_rows(table.to_pylist(), [source.name for source in settings.sources]), [stored]
