"""Scores towers by their recall on days that they were not trained on.

hit_rate@k = hits / truth pairs. A truth pair is a hit if its item is among its user's k best, by exact search over the corpus.

Letters: V scored users, B users of a block, I items, K interests, D vector width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, ItemSets, repeat_rows, row_blocks
from dssm_assets.core.columns import ITEM_ROW, USER_ROW
from dssm_assets.core.config.model import Model, Targets
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.prior import append_one, append_prior
from dssm_assets.core.models.tower_input import TowerInput, add_missing_context, concatenate_rows, select_rows
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.exact import Corpus, flatten_interests, search_interests
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.core.samples.sample_tables import DAY, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import EpochScore

if TYPE_CHECKING:
    from dssm_assets.core.training.closed_form.prior_choice import PriorSearch

BLOCK_ROWS = 2048


class ValidationSet:
    """The users of the validation days to score, for towers fitted to the days before.

    Attributes:
        user_index: index of each user, ascending [V].
        truth: each user's items on the validation days, at least one item each.
        excluded: items left out of each user's list.
        num_items: I, the number of items of the corpus.
    """

    def __init__(self, data: TrainData, first_day: int, targets: Targets = Targets.ALL) -> None:
        """Chooses the users with a history before `first_day`, and a target from it on.

        Args:
            targets: all interactions, or only interactions with items new to the user. In the latter case lists also leave out
                the user's history.

        Raises:
            SchemaError: there is no such user.
        """
        rows = data.rows_of_days(first_day, data.num_days, targets=targets)
        keys, ends = data.read_keys(rows), data.user_ends(first_day)
        known = np.flatnonzero(keys[USER_INDEX] >= 0)
        scored = known[(ends - data.user_starts)[keys[USER_INDEX][known]] > 0]
        if not len(scored):
            where, expected = "training.validation_days", "a user with positive events on those days and before"
            raise SchemaError(Fault(where, expected, f"none of {len(rows)} samples", "set it lower, or to 0"))
        users, first = np.unique(keys[USER_INDEX][scored], return_index=True)
        places = np.searchsorted(users, keys[USER_INDEX][scored])
        self.user_index, self.num_items = users.astype(np.int64), data.num_items
        self.truth = ItemSets.of_pairs(places, keys[ITEM_INDEX][scored].astype(np.int64), len(users))
        self.excluded = ItemSets.empty(len(users))
        if targets is Targets.NEW:
            items, lengths = data.known_items(users, ends)
            self.excluded = ItemSets.of_pairs(repeat_rows(lengths), items, len(users))
        self._data, self._ends = data, ends[users]
        self._user_row = keys[USER_ROW][scored][first].astype(np.int64)  # [V]
        self._item_row = _last_item_rows(data, first_day)  # row in item_rows; -1: features are read from the corpus [I]

    @property
    def num_users(self) -> int:
        return len(self.user_index)

    def read_users(self, places: IntArray) -> TowerInput:
        """Returns the user tower's input for these users, given as positions 0 .. V - 1. Context features are missing."""
        spec = self._data.spec
        features = add_missing_context(self._data.sample_users.read(self._user_row[places]), spec)
        starts = self._data.user_starts[self.user_index[places]]
        return features.with_history(self._data.history.read(starts, self._ends[places]))

    def read_items(self, item_index: IntArray) -> TowerInput:
        """Returns the item tower's input for these items, with the features from before the validation days if known."""
        rows = self._item_row[item_index]
        is_early = rows >= 0
        early, late = self._data.sample_items.read(rows[is_early]), self._data.items.read(item_index[~is_early])
        order = np.argsort(np.concatenate([np.flatnonzero(is_early), np.flatnonzero(~is_early)]), kind="stable")
        return select_rows(concatenate_rows(early, late), order)


def user_blocks(
    towers: TwoTower, validation: ValidationSet, places: IntArray | None = None, ranks: Ranks = SINGLE_PROCESS
) -> Iterator[FloatArray]:
    """Yields the vectors of the users in blocks [B, D] or [B, K, D]. Only the first process gets them.

    Each process computes its part of every block, so all must iterate to the end. `places`: positions of users. None: all.
    """
    chosen = np.arange(validation.num_users) if places is None else places
    return _blocks(len(chosen), lambda rows: towers.user_vectors(validation.read_users(chosen[rows])), ranks)


def item_vectors(towers: TwoTower, validation: ValidationSet, ranks: Ranks = SINGLE_PROCESS) -> FloatArray:
    """Returns the vectors of the items [I, D] in the first process. Other processes get no vectors."""
    blocks = list(_blocks(validation.num_items, lambda rows: towers.item_vectors(validation.read_items(rows)), ranks))
    return np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)


def hit_rate(
    users: Iterable[FloatArray], items: FloatArray, truth: ItemSets, k: int, excluded: ItemSets | None = None
) -> float:
    """Returns hit_rate@k of these vectors by inner product. Only one block of users has its lists in memory.

    By hand: one user has two items to find, and the list has one. Another user's only item is found: 2 / 3.

    Args:
        users: vectors of all users, in order, in blocks.
        truth: each user's items to find.
        excluded: items left out of each user's list. None: none.
    """
    # With cosine similarity, vectors have length 1, so their product is the cosine. A prior adds one more dimension.
    corpus = Corpus(items, Metric.IP)
    hits = begin = 0
    for block in users:
        flat, bounds = flatten_interests(block)
        rows = np.arange(begin, begin + len(block))
        left_out = None if excluded is None else excluded.select_users(rows)
        found, _ = search_interests(corpus, flat, bounds, k, excluded=left_out)
        recalled = ItemSets.of_pairs(np.arange(len(found)).repeat(found.shape[1]), found.ravel(), len(found))
        wanted = truth.select_users(rows)
        hits += int(recalled.contains(wanted.users, wanted.items).sum())
        begin += len(block)
    return hits / len(truth.items)


def scored_k(ks: Sequence[int], num_items: int) -> int:
    """Returns the k for comparing towers: the largest k below the number of items, or the smallest k if there is none.

    A list as long as the corpus has every item, so it cannot tell good towers from bad towers.
    """
    return max((k for k in ks if k < num_items), default=min(ks))


class EpochEvaluator:
    """Scores towers on the validation days. Each process computes part of the vectors, and all get the same score."""

    def __init__(
        self, data: TrainData, first_day: int, model: Model, ks: Sequence[int], *, ranks: Ranks = SINGLE_PROCESS
    ) -> None:
        """Reads the users to score. Raises the errors of `ValidationSet`. The first process searches and chooses the prior."""
        self._set = ValidationSet(data, first_day, model.targets)
        self._k = scored_k(ks, data.num_items)
        self._ranks, self._has_prior = ranks, model.prior
        self._prior_search: PriorSearch | None = None
        if model.prior and ranks.is_first:
            from dssm_assets.core.training.closed_form.prior_choice import PriorSearch

            self._prior_search = PriorSearch.from_days_before(data, first_day)

    def score(self, towers: TwoTower, epoch: int) -> EpochScore:
        items = item_vectors(towers, self._set, self._ranks)
        numbers = self._search(towers, items) if self._ranks.is_first else self._assist_search(towers)
        found = self._ranks.from_first(numbers)
        prior = (found[2], found[3], found[4], found[5]) if self._has_prior else None
        error = math.sqrt(found[0] * (1 - found[0]) / len(self._set.truth.items))
        return EpochScore(epoch, found[0], found[1], prior, error)

    def _search(self, towers: TwoTower, items: FloatArray) -> list[float]:
        """Returns the hit rate, the hit rate without prior, and the prior's four numbers if there is a prior."""
        truth, every = self._set.truth, self._set.excluded
        if self._prior_search is None:
            plain = hit_rate(user_blocks(towers, self._set, ranks=self._ranks), items, truth, self._k, every)
            return [plain, plain]
        chosen = self._prior_search.choose_users(self._set.num_users, self._k)
        kept: list[FloatArray] = []
        blocks = _keep_rows(user_blocks(towers, self._set, ranks=self._ranks), chosen, kept)
        plain = hit_rate(blocks, items, truth, self._k, every)
        with torch.no_grad():
            scale = float(towers.similarity.scale())
        prior = self._prior_search.choose(
            np.concatenate(kept), items, truth.select_users(chosen), scale=scale, k=self._k, excluded=every.select_users(chosen)
        )
        # User vectors are computed a second time, because together they might not fit into memory.
        widened = (append_one(block) for block in user_blocks(towers, self._set, ranks=self._ranks))
        found = hit_rate(widened, append_prior(items, self._prior_search.item_values(prior)), truth, self._k, every)
        return [found, plain, prior.popularity, prior.recent, prior.half_life_days, prior.growth]

    def _assist_search(self, towers: TwoTower) -> list[float]:
        """Computes this process's part of the vectors for the first process. Returns as many numbers as `_search`."""
        for _ in range(2 if self._has_prior else 1):
            deque(user_blocks(towers, self._set, ranks=self._ranks), maxlen=0)
        return [0.0] * (6 if self._has_prior else 2)


def _keep_rows(blocks: Iterable[FloatArray], chosen: IntArray, kept: list[FloatArray]) -> Iterator[FloatArray]:
    """Yields the blocks unchanged, and appends their chosen rows to `kept`. `chosen`: ascending rows over all blocks."""
    begin = 0
    for block in blocks:
        first, last = np.searchsorted(chosen, [begin, begin + len(block)])
        kept.append(block[chosen[first:last] - begin])
        begin += len(block)
        yield block


def _last_item_rows(data: TrainData, first_day: int) -> IntArray:
    """Returns the feature row of each item's last sample before a day [I]; -1 if no row is known."""
    found = np.full(data.num_items, -1, np.int64)
    for days, items, rows in data.keys.blocks(DAY, ITEM_INDEX, ITEM_ROW):
        is_early = (days < first_day) & (rows > 0)
        # Reversed, because np.unique finds the first position of each item.
        last, at = np.unique(items[is_early][::-1], return_index=True)
        found[last] = rows[is_early][::-1][at]
    return found


def _blocks(count: int, vectors: Callable[[IntArray], Tensor], ranks: Ranks) -> Iterator[npt.NDArray[np.float32]]:
    for rows in row_blocks(count, BLOCK_ROWS):
        with torch.no_grad():
            found = ranks.gather(vectors(rows[ranks.rows(len(rows))]).float(), len(rows))
        if ranks.is_first:
            yield found.cpu().numpy()
