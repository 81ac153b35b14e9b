"""Reads what channels need from the stored days, and makes the channels and merged lists of some users.

Belongs here: from partitions to channels, as of the beginning of a day. Does not belong here: the step that fits the weights of
the merges (`channel_weights.py`), channels of a bundle (`serving/channels.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.channels.channel import Channel, Float64Array, NearestItems
from dssm_assets.core.channels.item_to_item import MIN_COMMON_USERS
from dssm_assets.core.channels.merge import ChannelScorer, DescribedUsers, Merge, MergedScorer
from dssm_assets.core.channels.sources import OwnItems, SharedData, make_channels
from dssm_assets.core.channels.weights_table import CHANNEL_WEIGHTS, from_rows
from dssm_assets.core.config.channels import ChannelName, Channels
from dssm_assets.core.errors import Fault, SchemaError, remedy_of_missing
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.item_cooccurrence import csr_of, neighbors_of
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import ModelScorer, Scorer
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


def shared_arrays(data: FitData) -> Arrays:
    """Returns, as arrays that other processes can open, what all users have in common, from the interactions of all users."""
    neighbors = neighbors_of(data, MIN_COMMON_USERS)
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


def keep_lists(settings: Channels, model: ModelScorer, num_users: int) -> KnownLists:
    """Returns the model as a scorer of the first num_users users that keeps what the channel of vectors proposes."""
    return KnownLists(model, num_users, settings.depths[ChannelName.VECTORS])


def channel_scorers(channels: Sequence[Channel], merges: Sequence[Merge], shared: SharedData) -> list[Scorer]:
    """Returns the merged lists as scorers, then each channel alone except the vectors, which are the model."""
    users, order = DescribedUsers(tuple(channels)), shared.popular_order
    merged: list[Scorer] = [MergedScorer(merge, users, order) for merge in merges]
    return merged + [ChannelScorer(one, order) for one in channels if one.name is not ChannelName.VECTORS]


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


class KnownLists:
    """A model as a scorer that keeps the beginning of each list: the channel of vectors asks for it again, for few users at a time.

    Where a short list is not known yet, those of all users are searched at once, in the model's blocks.
    """

    def __init__(self, model: ModelScorer, num_users: int, depth: int) -> None:
        """Knows no list yet.

        Args:
            depth: items of each list that are kept.
        """
        self.name, self.block_size, self._model = model.name, model.block_size, model
        self._lists, self._is_known = np.full((num_users, depth), -1, np.int32), np.zeros(num_users, np.bool_)

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if k > self._lists.shape[1]:
            return self._search(user_rows, k)
        if not self._is_known[user_rows].all():
            unknown = np.flatnonzero(~self._is_known)
            for start in range(0, len(unknown), self.block_size):
                self._search(unknown[start : start + self.block_size], self._lists.shape[1])
        return self._lists[user_rows, :k].astype(np.int64)

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        return self._model.top_items_without(user_rows, k, excluded)

    def score_items(self, user_rows: IntArray, items: IntArray) -> Float64Array:
        return self._model.score_items(user_rows, items)

    def _search(self, user_rows: IntArray, k: int) -> IntArray:
        found = self._model.top_items(user_rows, k)
        self._lists[user_rows], self._is_known[user_rows] = found[:, : self._lists.shape[1]], True
        return found
