"""The truth of an evaluation day: each user's items on the day, and whether they occurred in the window before.

Shapes: U evaluated users, P truth pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.arrays.ids import cast_ids, find_positions, sorted_unique
from dssm_assets.core.columns import GT_IS_REPEAT, GT_IS_WARM, GT_ITEMS, IS_WARM_USER, ITEM_ID, USER_ID
from dssm_assets.core.names import Population, Scope


@dataclass(frozen=True)
class Truth:
    """The distinct (user, item) pairs of the day as arrays, sorted by user and item id.

    Attributes:
        user_ids: evaluated users [U], ascending: all users of ground_truth, even without truth in some scope or population.
        is_warm_user: bool [U].
        pair_user: int64 [P], row of the user in user_ids.
        pair_item: int64 [P], position of the item in the corpus, -1 if the corpus lacks it. A pair with -1 is never a hit but
            counts in the denominator.
        is_warm: bool [P], whether both the user and the item are warm.
        is_repeat: bool [P], whether the user had a positive event on the item in the window.
    """

    user_ids: pa.Array
    is_warm_user: ragged.Mask
    pair_user: ragged.IntArray
    pair_item: ragged.IntArray
    is_warm: ragged.Mask
    is_repeat: ragged.Mask

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    def select_users(self, users: ragged.IntArray) -> tuple[Truth, ragged.IntArray]:
        """Returns the truth of some users (ascending rows, renumbered from 0), and the positions of their pairs in this truth."""
        first, end = np.searchsorted(self.pair_user, users), np.searchsorted(self.pair_user, users, side="right")
        pairs, owner = ragged.ranges(first, end - first), ragged.repeat_rows(end - first)
        ids = self.user_ids.take(pa.array(users))
        flags = (self.is_warm[pairs], self.is_repeat[pairs])
        return Truth(ids, self.is_warm_user[users], owner, self.pair_item[pairs], *flags), pairs

    def pairs_by_scope(self, history: ragged.ItemSets) -> dict[Scope, ragged.Mask]:
        """Returns scope -> its truth pairs, bool [P]. Scope cold is not included.

        An item outside the corpus is never in the history, so only the window decides whether it is new.

        Args:
            history: each user's items in all stored days before this day.
        """
        is_repeat, is_new = self.is_repeat, ~(self.is_repeat | history.contains(self.pair_user, self.pair_item))
        known = {Scope.ALL: np.ones_like(is_repeat), Scope.DISCOVERY: ~is_repeat, Scope.REPEAT: is_repeat}
        return {**known, Scope.NEW: is_new, Scope.UNSEEN: is_new}

    def pairs_of(self, population: Population) -> ragged.Mask:
        """Returns the pairs of a population, bool [P]."""
        return {Population.WARM: self.is_warm, Population.NOT_WARM: ~self.is_warm}.get(population, np.ones_like(self.is_warm))


def read_truth(ground_truth: pa.Table, item_ids: pa.Array | pa.ChunkedArray) -> Truth:
    """Returns the truth of a ground_truth table over a corpus.

    Args:
        ground_truth: rows from `ground_truth`, in any order; one per user.
        item_ids: the corpus, distinct; its order defines item_index.

    Raises:
        InputError: item ids of ground_truth and of the corpus have different types.
    """
    corpus = ragged.combine_chunks(item_ids)
    table = ground_truth.sort_by(USER_ID)
    lists = ragged.combine_chunks(table.column(GT_ITEMS))
    owner = ragged.repeat_rows(ragged.list_lengths(lists))
    items = cast_ids(pc.list_flatten(lists), corpus.type, "ground_truth, column gt_items")
    warm_user = table.column(IS_WARM_USER).to_numpy()
    warm_item, repeat = (pc.list_flatten(table.column(name)).to_numpy() for name in (GT_IS_WARM, GT_IS_REPEAT))
    return Truth(
        user_ids=ragged.combine_chunks(table.column(USER_ID)),
        is_warm_user=warm_user,
        pair_user=owner,
        pair_item=find_positions(items, corpus),
        is_warm=warm_user[owner] & warm_item,
        is_repeat=repeat,
    )


def ground_truth(day_positives: pa.Table, window_pairs: Iterable[pa.Table]) -> pa.Table:
    """Returns one row per user with a positive event on the day, sorted by user_id.

    A user or an item is warm if it has a positive event in the window. A pair is a repeat if the window has the same pair.
    Example: the day has (u1, a), (u1, b), (u2, a), the window has (u1, b), (u3, a). Then u1 has items [a, b], warm [true,
    true], repeat [false, true], and is a warm user. u2 has items [a], warm [true], repeat [false], and is not a warm user.

    Args:
        day_positives: user_id, item_id of the day's positive events; a pair may occur several times.
        window_pairs: tables of user_id, item_id of the window's positive events. Only one table is in memory at a time. A pair
            may occur several times.

    Returns:
        user_id, gt_items list<id> (distinct, ascending), gt_is_warm list<bool>, gt_is_repeat list<bool>, is_warm_user.

    Raises:
        InputError: ids are numbers in one table and text in the other.
    """
    users = ragged.combine_chunks(day_positives.column(USER_ID))
    items = ragged.combine_chunks(day_positives.column(ITEM_ID))
    user_values, item_values = sorted_unique(users), sorted_unique(items)
    num_users, num_items = len(user_values), len(item_values)
    day = ragged.ItemSets.of_pairs(find_positions(users, user_values), find_positions(items, item_values), num_users)
    is_repeat = np.zeros(len(day.items), np.bool_)
    warm_user, warm_item = np.zeros(num_users + 1, np.bool_), np.zeros(num_items + 1, np.bool_)  # one more entry, for other ids
    for seen in window_pairs:
        seen_user, seen_item = _positions_of(seen, USER_ID, user_values), _positions_of(seen, ITEM_ID, item_values)
        warm_user[seen_user] = warm_item[seen_item] = True
        is_repeat |= ragged.ItemSets.of_pairs(seen_user, seen_item, num_users).contains(day.users, day.items)
    columns = {
        GT_ITEMS: item_values.take(pa.array(day.items)),
        GT_IS_WARM: pa.array(warm_item[day.items]),
        GT_IS_REPEAT: pa.array(is_repeat),
    }
    lists = {name: ragged.build_lists(values, day.offsets) for name, values in columns.items()}
    return pa.table({USER_ID: user_values, **lists, IS_WARM_USER: pa.array(warm_user[:-1])})


def _positions_of(window_pairs: pa.Table, column: str, values: pa.Array) -> ragged.IntArray:
    """Returns the position of each window id among the day's ids; -1 for other ids."""
    ids = cast_ids(ragged.combine_chunks(window_pairs.column(column)), values.type, f"window_pairs, column {column}")
    return find_positions(ids, values)


def sample_users(ground_truth: pa.Table, max_users: int | None, seed: int) -> pa.Table:
    """Samples the users with the smallest hash of seed and id. Returns their rows in the given order.

    Args:
        max_users: number of users at most. None: all.
    """
    users = ragged.combine_chunks(ground_truth.column(USER_ID)).cast(pa.string())
    hashes = hash_values(pc.binary_join_element_wise(pa.scalar(str(seed)), users, ":"))
    return ground_truth.take(pa.array(np.sort(np.argsort(hashes, kind="stable")[:max_users])))
