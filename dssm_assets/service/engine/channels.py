"""Merges lists from the channels of a bundle, with the evaluation's code (`core/channels/merge.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.channels.channel import (
    COUNTS,
    Channel,
    Float64Array,
    NearestItems,
    OwnItems,
    SharedData,
    first_allowed,
    join_users,
    make_channels,
)
from dssm_assets.core.channels.merge import find_candidates, from_rows, rank_candidates
from dssm_assets.core.channels.reasons import find_similar_own, split_scores
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.item_neighbors import csr_of
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ItemChannelColumn, OwnItemColumn
from dssm_assets.core.retrieval.item_filter import AllowedItems
from dssm_assets.service.bundle.bundle_store import broken
from dssm_assets.service.engine.bundle_reader import Bundle

NO_ITEMS: Final = OwnItems(np.zeros(2, np.int64), *(np.zeros(0, np.int64) for _ in range(3)))
"""Own items of a user without events."""
FILLED: Final = "popular"
"""Source of an item that no channel proposed. Lists are filled up with popular items."""
_OWN_COLUMNS: Final = (OwnItemColumn.ROWS, OwnItemColumn.COUNTS, OwnItemColumn.LAST_TIMES_MS)


class BundleChannels:
    """Merges lists. Safe for any number of threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Reads the files. Raises a StorageError if they do not match the bundle or have another version."""
        content = bundle.read_json(BundleFile.CHANNELS)
        if content.get("version") != CHANNELS_VERSION:
            got = f"version {content.get('version')!r}, this version reads {CHANNELS_VERSION}"
            raise broken(bundle.bundle_id, f"channels.json has {got}")
        self._now_ms = int(content["now_ms"])
        self._depths = {ChannelName(name): int(depth) for name, depth in content["depths"].items()}
        (self._merge,) = from_rows(content["weights"], tuple(self._depths))
        items, own = bundle.read_arrow(BundleFile.ITEM_CHANNELS), bundle.read_arrow(BundleFile.OWN_ITEMS)
        if (items.num_rows, own.num_rows) != (len(bundle.items), len(bundle.users)):
            got = f"{items.num_rows} items and {own.num_rows} users"
            raise broken(bundle.bundle_id, f"its channels have {got} instead of {len(bundle.items)} and {len(bundle.users)}")
        # Views of the mapped file: for each column, the users' starts and the values.
        self._own = [_read_lists(own, name) for name in _OWN_COLUMNS]
        starts, neighbors = _read_lists(items, ItemChannelColumn.NEIGHBORS)
        self._shared = SharedData(
            **{name: items.column(name).to_numpy() for name in COUNTS},
            neighbors=csr_of(starts, neighbors, _read_lists(items, ItemChannelColumn.SIMILARITIES)[1]),
        )
        # Computed now, because otherwise several requests would compute them at once.
        _ = self._shared.event_signals, self._shared.repeats
        self.popular_items = self._shared.recent_order, self._shared.recent_events
        """All rows, the most popular of late first, and each item's recent events."""

    @property
    def vector_depth(self) -> int:
        return self._depths[ChannelName.VECTORS]

    def own_items(self, user_row: int) -> OwnItems:
        rows, counts, times = (values[starts[user_row] : starts[user_row + 1]].astype(np.int64) for starts, values in self._own)
        return OwnItems(np.array([0, len(rows)], np.int64), rows, counts, times)

    def add_events(self, own: OwnItems, item_rows: Sequence[int], times_ms: Sequence[int] | None) -> OwnItems:
        """Adds events to a user's items; events without times are dated to the bundle's day."""
        rows = np.array(item_rows, np.int64)
        times = np.array(times_ms or [self._now_ms] * len(rows), np.int64)[rows >= 0]
        rows = rows[rows >= 0]
        items, positions = np.unique(np.concatenate([own.items, rows]), return_inverse=True)
        counts, last = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
        np.add.at(counts, positions, np.concatenate([own.counts, np.ones(len(rows), np.int64)]))
        np.maximum.at(last, positions, np.concatenate([own.last_time_ms, times]))
        return OwnItems(np.array([0, len(items)], np.int64), items, counts, last)

    def merge(
        self, own: Sequence[OwnItems], nearest: NearestItems, allowed: AllowedItems | None, depth: int
    ) -> Iterator[tuple[IntArray, Float64Array, list[list[str]]]]:
        """Yields each user's merged list: item rows (best first, -1 after the last), log-odds, sources.

        Log-odds say how likely the user interacts with the item. The sources of an item are the channels that proposed it, or
        `popular`. Merging many users at once costs less. Each list is the same as for the user alone.

        Args:
            own: each user's own items.
            nearest: finds the items nearest to the users' vectors, and the score of any item.
            allowed: the items that the lists may have. None: all items.
            depth: length of the lists, if there are enough items.
        """
        mask = None if allowed is None else allowed.mask
        channels = self._make_channels(own, nearest, allowed)
        candidates = find_candidates(channels, np.arange(len(own)))
        items = candidates.items
        if mask is not None:
            items = np.where(mask[items], items, -1)
        depth = min(depth, len(self._shared.window_events))
        fill_order = first_allowed(self._shared.recent_order, mask, depth + items.shape[1])
        ranked = rank_candidates(self._merge, items, candidates.signals, fill_order, depth)
        bits = np.zeros((len(own), items.shape[1] + 1), np.int64)  # channels that proposed each candidate; the last: none
        bits[:, :-1] = ((candidates.positions >= 0).T @ (1 << np.arange(len(channels)))).T
        names = [str(channel.name) for channel in channels]
        numbers = range(1 << len(names))
        sources = [[name for bit, name in enumerate(names) if number >> bit & 1] or [FILLED] for number in numbers]
        proposed_by = np.take_along_axis(bits, ranked.columns, 1)  # [B, K]
        for rows, odds, own_bits in zip(ranked.items, ranked.odds, proposed_by.tolist(), strict=True):
            yield rows, odds, [sources[number] for number in own_bits]

    def explain(
        self, own: OwnItems, nearest: NearestItems, allowed: AllowedItems | None, rows: IntArray
    ) -> Iterator[tuple[dict[str, float], IntArray]]:
        """Yields each item's reasons in one user's merged list: results of `split_scores` and `find_similar_own`. See `merge`."""
        found = find_candidates(self._make_channels([own], nearest, allowed), np.zeros(1, np.int64))
        return zip(
            split_scores(self._merge, found, rows), find_similar_own(self._shared.neighbors, own.items, rows), strict=True
        )

    def neighbors_of(self, row: int) -> tuple[IntArray, Float64Array]:
        """Returns the rows of an item's neighbors, most similar first, and their similarities."""
        similar = self._shared.neighbors[[row]]
        order = np.lexsort((similar.indices, -similar.data))
        return similar.indices[order].astype(np.int64), similar.data[order]

    def _make_channels(
        self, own: Sequence[OwnItems], nearest: NearestItems, allowed: AllowedItems | None
    ) -> tuple[Channel, ...]:
        mask = None if allowed is None else allowed.mask
        return make_channels(self._depths, self._shared, join_users(own), nearest, self._now_ms, mask)


def _read_lists(table: pa.Table, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns starts and values of a column of lists."""
    lists = combine_chunks(table.column(name))
    return lists.offsets.to_numpy(), lists.values.to_numpy()
