"""Makes the channels of some users from their history and from what all users have in common.

Belongs here: from arrays to channels, the same in the evaluation and in the recall service. Does not belong here: reading the
arrays from tables (`steps/channels.py`) or from a bundle (`serving/channels.py`).

Shapes: U users, I items, E (user, item) pairs, K length of a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray, offsets_of
from dssm_assets.core.channels.channel import (
    Channel,
    Float64Array,
    ListChannel,
    NearestItems,
    PopularityChannel,
    VectorChannel,
    event_signals,
    first_allowed,
)
from dssm_assets.core.channels.own_history import OwnHistoryChannel, item_repeats
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.baselines.fill import order_by_events
from dssm_assets.core.evaluation.baselines.neighbors import NeighborLists


@dataclass(frozen=True)
class SharedData:
    """What all users have in common, as of one moment.

    Attributes:
        window_events: int64 [I], positive events of each item in the window.
        recent_events: int64 [I], the same of the recent days.
        history_events: int64 [I], the same of all days that are known.
        window_users: int64 [I], users with a positive event on the item in the window.
        neighbors: scipy csr [I, I], row i: the similarities of the most similar items of i.
    """

    window_events: IntArray
    recent_events: IntArray
    history_events: IntArray
    window_users: IntArray
    neighbors: Any

    @cached_property
    def popular_order(self) -> IntArray:
        """Returns all items int64 [I], most positive events in the window first: what lists are filled up from."""
        return order_by_events(self.window_events)

    @cached_property
    def recent_order(self) -> IntArray:
        """Returns all items int64 [I]: most events of the recent days first, then of the window, then the lower index."""
        return np.lexsort((-self.window_events, -self.recent_events)).astype(np.int64)

    @cached_property
    def event_signals(self) -> Float64Array:
        """Returns float64 [3, I + 1]; see `channel.event_signals`."""
        return event_signals(self.window_events, self.recent_events, self.history_events)

    @cached_property
    def repeats(self) -> Float64Array:
        """Returns float64 [I]; see `own_history.item_repeats`."""
        return item_repeats(self.window_events, self.window_users)


@dataclass(frozen=True)
class OwnItems:
    """The items of each user's positive events before a moment; those of user u are at indptr[u] : indptr[u + 1], ascending.

    Attributes:
        indptr: int64 [U + 1].
        items: int64 [E].
        counts: int64 [E], positive events.
        last_time_ms: int64 [E], of the last of them.
    """

    indptr: IntArray
    items: IntArray
    counts: IntArray
    last_time_ms: IntArray


def join_users(users: Sequence[OwnItems]) -> OwnItems:
    """Returns the items of several users of one each."""
    items, counts, times = (
        np.concatenate(column) for column in zip(*((one.items, one.counts, one.last_time_ms) for one in users), strict=True)
    )
    return OwnItems(offsets_of([len(one.items) for one in users]), items, counts, times)


def make_channels(
    depths: Mapping[ChannelName, int],
    shared: SharedData,
    own: OwnItems,
    nearest: NearestItems | None,
    now_ms: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[Channel, ...]:
    """Returns the configured channels of some users.

    Args:
        depths: how many items each configured channel proposes, in the order of the channels.
        shared: as of `now_ms`.
        own: of the users, before `now_ms`.
        nearest: the vectors; None: there are none, and no channel of that name.
        allowed: bool [I], the items that may be in a list; None: all. `nearest` may propose others.
    """
    popular_depth = depths.get(ChannelName.RECENT_POPULARITY, 0)
    made: dict[ChannelName, Channel] = {
        ChannelName.OWN_HISTORY: OwnHistoryChannel(
            own.indptr,
            own.items,
            own.counts,
            own.last_time_ms,
            shared.repeats,
            now_ms,
            depths.get(ChannelName.OWN_HISTORY, 0),
            allowed,
        ),
        ChannelName.ITEM_TO_ITEM: ListChannel(
            ChannelName.ITEM_TO_ITEM,
            # Without the user's own items, which the channel of own history proposes.
            NeighborLists(own.indptr, own.items, shared.neighbors, has_own_items=False, allowed=allowed).top_items,
            depths.get(ChannelName.ITEM_TO_ITEM, 0),
        ),
        ChannelName.RECENT_POPULARITY: PopularityChannel(
            first_allowed(shared.recent_order, allowed, popular_depth), shared.event_signals, popular_depth
        ),
    }
    if nearest is not None:
        made[ChannelName.VECTORS] = VectorChannel(nearest, depths.get(ChannelName.VECTORS, 0))
    return tuple(made[name] for name in depths if name in made)
