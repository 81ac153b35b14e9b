"""The truth in the form that scoring computes with: one entry per pair of an evaluated user and an item it took.

Belongs here: `Truth`, and the scopes and populations that cut it. Does not belong here: building the table
(`ground_truth.py`), counting hits (`hit_counts.py`).

Shapes: U evaluated users, P truth pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.columns import GT_IS_REPEAT, GT_IS_WARM, GT_ITEMS, IS_WARM_USER, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.ids import cast_ids, check_unique, flat, positions, sorted_unique
from dssm_assets.core.retrieval.exclusions import Index

Mask = NDArray[np.bool_]


class Scope(StrEnum):
    """Which of a user's items are asked for."""

    ALL = "all"
    """Everything the user took on the day; every item is a candidate."""
    DISCOVERY = "discovery"
    """What the user had not taken in the window; what it took there is no candidate."""
    REPEAT = "repeat"
    """What the user had taken in the window already; every item is a candidate."""


class Population(StrEnum):
    """Which pairs count."""

    WARM = "warm"
    """User and item both had a positive event in the window: what recall can answer for."""
    COLD = "cold"
    """The user or the item is new."""
    ALL = "all"
    """Warm and cold."""


@dataclass(frozen=True)
class Truth:
    """The distinct (user, item) pairs of the day, sorted by user and item id.

    Attributes:
        user_ids: evaluated users [U], ascending: every user of ground_truth, also those without truth.
        is_warm_user: bool [U].
        pair_user: int64 [P], row of the user in user_ids.
        pair_item: int64 [P], position of the item in the corpus, -1 if the corpus lacks it. Such a pair can never be a
            hit and still counts in the denominator.
        is_warm: bool [P], user and item warm.
        is_repeat: bool [P].
    """

    user_ids: pa.Array
    is_warm_user: Mask
    pair_user: Index
    pair_item: Index
    is_warm: Mask
    is_repeat: Mask

    @property
    def num_users(self) -> int:
        """Returns U."""
        return len(self.user_ids)

    def users_from(self, start: int, stop: int) -> Truth:
        """Returns the truth of the users in rows start .. stop - 1 alone, their rows counted from 0."""
        low, high = np.searchsorted(self.pair_user, [start, stop])
        return Truth(
            user_ids=self.user_ids.slice(start, stop - start),
            is_warm_user=self.is_warm_user[start:stop],
            pair_user=self.pair_user[low:high] - start,
            pair_item=self.pair_item[low:high],
            is_warm=self.is_warm[low:high],
            is_repeat=self.is_repeat[low:high],
        )

    def pairs_in(self, scope: Scope, population: Population) -> Mask:
        """Returns bool [P]: the pairs that a scope and a population ask for."""
        in_scope = {Scope.ALL: np.ones_like(self.is_repeat), Scope.DISCOVERY: ~self.is_repeat, Scope.REPEAT: self.is_repeat}
        in_population = {
            Population.ALL: np.ones_like(self.is_warm),
            Population.COLD: ~self.is_warm,
            Population.WARM: self.is_warm,
        }
        result: Mask = in_scope[scope] & in_population[population]
        return result


def read_truth(ground_truth: pa.Table, item_ids: pa.Array | pa.ChunkedArray) -> Truth:
    """Returns the truth of a ground_truth table over a corpus, with duplicates within a user's list removed.

    Args:
        ground_truth: the table; rows in any order.
        item_ids: the corpus, distinct; its order defines item_index.

    Raises:
        DuplicateKeyError: if a user has two rows or an item occurs twice in the corpus.
        InputError: if lists of one user differ in length or ids are of another kind than the corpus.
    """
    users, corpus = flat(ground_truth.column(USER_ID)), flat(item_ids)
    check_unique(users, "ground_truth, column user_id")
    check_unique(corpus, "corpus, column item_id")
    table = ground_truth.take(pc.sort_indices(users))
    lists = flat(table.column(GT_ITEMS))
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    for column in (GT_IS_WARM, GT_IS_REPEAT):
        other = pc.fill_null(pc.list_value_length(flat(table.column(column))), 0)
        if not lengths.equals(other):
            where = f"ground_truth, column {column}"
            raise InputError(Fault(where, "one entry per entry of gt_items", "lists of other lengths", "materialise it again"))
    taken = cast_ids(pc.list_flatten(lists), corpus.type, "ground_truth, column gt_items")
    owner = np.repeat(np.arange(len(users)), lengths.to_numpy(zero_copy_only=False))
    values = sorted_unique(taken)
    item = positions(taken, values)
    _, first = np.unique(owner * max(len(values), 1) + item, return_index=True)
    warm_user = _booleans(table.column(IS_WARM_USER))
    warm_item = _booleans(pc.list_flatten(flat(table.column(GT_IS_WARM))))
    repeat = _booleans(pc.list_flatten(flat(table.column(GT_IS_REPEAT))))
    return Truth(
        user_ids=flat(table.column(USER_ID)),
        is_warm_user=warm_user,
        pair_user=owner[first],
        pair_item=positions(values, corpus)[item[first]],
        is_warm=(warm_user[owner] & warm_item)[first],
        is_repeat=repeat[first],
    )


def _booleans(column: pa.ChunkedArray | pa.Array) -> Mask:
    return np.asarray(flat(column).to_numpy(zero_copy_only=False), dtype=bool)
