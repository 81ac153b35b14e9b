"""Computes vectors of users and items from fitted towers, batch by batch, in the order of the given rows.

Context features are missing, because they are unknown before the request, and dropout is off.

Letters: I items, U users, K interests, D width of the towers' vectors.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, row_blocks
from dssm_assets.core.models.group_codes import GroupCodes, read_keys
from dssm_assets.core.models.prior import append_one
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, add_missing_context, find_equal_rows, select_rows
from dssm_assets.core.models.tower_spec import TowerSide
from dssm_assets.core.models.two_tower import TwoTower


class ItemInference:
    """Applies the item tower to any number of tables of items.

    Items with equal features go through the tower once: most items of a long tail have no own embedding, so many are equal.
    """

    def __init__(self, two_tower: TwoTower, batch_size: int, group_codes: GroupCodes | None = None) -> None:
        """Takes the item tower, and optionally the codes for items without events."""
        self._towers, self._batch_size, self._codes = two_tower, batch_size, group_codes

    def vectors(self, items: pa.Table) -> FloatArray:
        """Returns the items' vectors [I, D], float32, before a prior is appended.

        Args:
            items: one row per item, with the embedding indices of every item feature (int32, or list of int32).
        """
        reader = SideReader(items, "items", self._towers.spec.features_of(TowerSide.ITEM))
        inputs = reader.read(np.arange(items.num_rows, dtype=np.int64))
        first, group = find_equal_rows(inputs)
        distinct = np.empty((len(first), self._towers.spec.output_dim), np.float32)
        with torch.no_grad():
            for rows in row_blocks(len(first), self._batch_size):
                distinct[rows] = self._towers.item_vectors(select_rows(inputs, first[rows])).cpu().numpy()
        if self._codes is not None:  # equal features have equal keys
            distinct = self._codes.fill_in(distinct, read_keys(items, self._codes.features)[first])
        return distinct if len(first) == len(group) else distinct[group]


class UserInference:
    """Applies the user tower to any number of tables of users. All histories are in one table."""

    def __init__(self, two_tower: TwoTower, history: pa.Table, *, as_of_ms: int, batch_size: int) -> None:
        """Checks the histories once.

        Args:
            history: all users' positive events by (user, time): event_time_ms and the sub-features' embedding indices.
            as_of_ms: the timestamp of the vectors; every event must be strictly earlier.
        """
        self._towers, self._batch_size, self._as_of_ms = two_tower, batch_size, as_of_ms
        self._history = HistoryReader(history, two_tower.spec)

    def vectors(self, users: pa.Table, history_start: IntArray, history_end: IntArray) -> FloatArray:
        """Returns the users' vectors for storing and searching, float32 [U, `user_vector_width`].

        The vectors of K interests are joined. With a prior, each ends with a 1, the factor of an item's prior.

        Args:
            users: one row per user, with the embedding indices of every user feature (int32, or list of int32).
            history_start: first event of each user in the history [U].
            history_end: end of each user's events in the history [U].

        Raises:
            SchemaError: a column is missing, has another type or an index out of range.
            LeakError: a history has an event at or after `as_of_ms`.
        """
        starts, ends = np.asarray(history_start, np.int64), np.asarray(history_end, np.int64)
        spec = self._towers.spec
        reader = SideReader(users, "users", spec.features_of(TowerSide.USER))
        as_of_ms, remedy = np.full(len(ends), self._as_of_ms, np.int64), "leave out events from the timestamp of the vectors on"
        self._history.check_causal(starts, ends, as_of_ms, where="history of users", remedy=remedy)
        vectors = np.empty((users.num_rows, spec.user_vector_width), np.float32)
        with torch.no_grad():
            for rows in row_blocks(users.num_rows, self._batch_size):
                history = self._history.read(starts[rows], ends[rows])
                inputs = add_missing_context(reader.read(rows), spec).with_history(history)
                found = self._towers.user_vectors(inputs).cpu().numpy()
                vectors[rows] = (append_one(found) if spec.prior else found).reshape(len(rows), -1)
        return vectors
