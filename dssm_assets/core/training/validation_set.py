"""What towers are scored on that were fitted on the days before: users, items and the truth of the later days.

Belongs here: who is asked and with what knowledge. Does not belong here: vectors, search and the score (`validation`).

Everything is as it was on the eve of the first day: a user's past ends before the first event of the validation days, an
item has the features of its last sample before. An item that no earlier sample has is read as the corpus has it, and a
user as its own first sample of the validation days does. Context features are missing, as in vectors made ahead.
Asked are the users who took something before: without it nothing can be recalled for them but what is popular.

Letters: V users, I items of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dssm_assets.core.columns import ITEM_ROW, USER_ROW
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.bags import Bags, IntArray, offsets_of, ragged_positions
from dssm_assets.core.models.tower_feature import Side
from dssm_assets.core.models.tower_input import TowerInput, concatenated, side_by_side
from dssm_assets.core.samples.specs import DAY, ITEM_INDEX, USER_INDEX

if TYPE_CHECKING:
    from dssm_assets.core.training.train_data import TrainData


@dataclass(frozen=True)
class ItemSets:
    """A set of item indices per user, ascending in each."""

    items: IntArray
    offsets: IntArray  # [V + 1]


@dataclass(frozen=True)
class ValidationSet:
    """Users of the validation days.

    Attributes:
        user_index: of each user, ascending [V].
        truth: the items that each took on the validation days, at least one.
        seen: the items of the corpus that each had taken before.
    """

    user_index: IntArray
    truth: ItemSets
    seen: ItemSets
    _data: TrainData
    _user_row: IntArray  # [V]
    _ends: IntArray  # where the past of each ends [V]
    _item_row: IntArray  # row in item_rows, -1: as in the corpus [I]

    @property
    def num_users(self) -> int:
        """V."""
        return len(self.user_index)

    @property
    def num_items(self) -> int:
        """I, the items that can be recalled: all of the corpus."""
        return len(self._item_row)

    def read_users(self, places: IntArray) -> TowerInput:
        """Returns the user tower's input of these users, 0 .. V - 1."""
        spec = self._data.spec
        context = spec.of(Side.CONTEXT)
        nothing = Bags(np.zeros(0, np.int64), np.zeros(len(places) + 1, np.int64), np.zeros(0, np.float32))
        singles = np.zeros((len(places), sum(not feature.is_multi for feature in context)), np.int64)
        sides = {
            Side.USER: self._data.sample_users.values(self._user_row[places]),
            Side.CONTEXT: (singles, tuple(nothing for feature in context if feature.is_multi)),
        }
        features = side_by_side(spec.of(Side.USER, Side.CONTEXT), sides)
        bags, is_empty = self._data.history.read(self._data.user_starts[self.user_index[places]], self._ends[places])
        return TowerInput(features.singles, features.bags + bags, is_empty)

    def read_items(self, item_index: IntArray) -> TowerInput:
        """Returns the item tower's input of these items of the corpus."""
        rows = self._item_row[item_index]
        is_early = rows >= 0
        early, late = self._data.sample_items.read(rows[is_early]), self._data.read_items(item_index[~is_early])
        order = np.argsort(np.concatenate([np.flatnonzero(is_early), np.flatnonzero(~is_early)]), kind="stable")
        return _taken(concatenated(early, late), order)


def validation_set(data: TrainData, first_day: int) -> ValidationSet:
    """Returns what towers are scored on that were fitted on the days before `first_day`.

    Raises:
        SchemaError: no user of these days took anything before.
    """
    rows = data.rows_of_days(first_day, data.num_days)
    keys = data.read_keys(rows)
    ends = data.user_ends(data.first_time_ms(first_day)) if len(rows) else data.user_ends()
    lengths = ends - data.user_starts
    known = np.flatnonzero(keys[USER_INDEX] >= 0)
    asked = known[lengths[keys[USER_INDEX][known]] > 0]
    if not len(asked):
        where, expected = "training.validation_days", "a user who took something on those days and before"
        raise SchemaError(Fault(where, expected, f"none of {len(rows)} samples", "set it lower, or to 0"))
    users, first = np.unique(keys[USER_INDEX][asked], return_index=True)
    places = np.searchsorted(users, keys[USER_INDEX][asked])
    taken = data.known_items(users, ends)
    return ValidationSet(
        user_index=users.astype(np.int64),
        truth=_sets(places, keys[ITEM_INDEX][asked].astype(np.int64), len(users)),
        seen=_sets(np.repeat(np.arange(len(users)), taken.lengths), taken.items, len(users)),
        _data=data,
        _user_row=keys[USER_ROW][asked][first].astype(np.int64),
        _ends=ends[users],
        _item_row=_last_rows(data, first_day),
    )


def _last_rows(data: TrainData, first_day: int) -> IntArray:
    """Returns the feature row of each item's last sample before a day [I], -1 where there is none that is known."""
    found = np.full(data.num_items, -1, np.int64)
    columns = (data.keys.blocks(name) for name in (DAY, ITEM_INDEX, ITEM_ROW))
    for days, items, rows in zip(*columns, strict=True):
        is_early = (days < first_day) & (rows > 0)
        # Reversed, the first of each item is its last.
        last, at = np.unique(items[is_early][::-1], return_index=True)
        found[last] = rows[is_early][::-1][at]
    return found


def _sets(places: IntArray, items: IntArray, count: int) -> ItemSets:
    """Returns the distinct items of the corpus per place."""
    is_inside = items >= 0
    width = int(items.max(initial=0)) + 1
    pairs = np.unique(places[is_inside] * width + items[is_inside])
    return ItemSets(pairs % width, offsets_of(np.bincount(pairs // width, minlength=count)))


def _taken(inputs: TowerInput, rows: IntArray) -> TowerInput:
    """Returns these rows of an input without history."""
    bags = []
    for bag in inputs.bags:
        at, offsets = ragged_positions(bag.offsets[rows], bag.offsets[rows + 1])
        bags.append(Bags(bag.values[at], offsets, bag.weights[at]))
    return TowerInput(inputs.singles[rows], tuple(bags))
