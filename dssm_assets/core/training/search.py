"""What decides between epochs: the score of towers on the validation days, with the prior that suits them.

Belongs here: `Judge`. Does not belong here: the hit rate (`validation`), the choice of a prior (`prior_choice`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import FloatArray, IntArray, row_of
from dssm_assets.core.models.prior import Prior, with_one, with_prior
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.samples.specs import DAY, ITEM_INDEX
from dssm_assets.core.training.distributed import Ranks
from dssm_assets.core.training.fit_state import EpochScore
from dssm_assets.core.training.prior_choice import Counts, choose_prior, scored_users
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training.validation import cut_of, hit_rate, item_vectors, user_blocks


class Judge:
    """Scores towers on the days from one day on."""

    def __init__(self, data: TrainData, first_day: int, model: Model, ks: Sequence[int], *, is_asked: bool) -> None:
        """Reads who is scored.

        Args:
            data: the window.
            first_day: of the validation days.
            model: whether there is a prior.
            ks: of the evaluation; the towers are told apart at the largest that the corpus exceeds.
            is_asked: this process computes scores; the others hear of them.

        Raises:
            SchemaError: there is nobody to score.
        """
        self._set = data.validation_set(first_day)
        self._k = cut_of(ks, data.num_items)
        self._is_asked, self._counts = is_asked, None
        if model.prior and is_asked:
            keys = data.read_keys(data.rows_of_days(0, first_day))
            items, ages = keys[ITEM_INDEX].astype("int64"), first_day - keys[DAY].astype("int64")
            self._counts = Counts.of(items, ages, data.num_items)
        self._has_prior = model.prior

    def score(self, towers: TwoTower, epoch: int, ranks: Ranks) -> EpochScore:
        """Returns the score after an epoch; the same in all processes, each of which computes its share of the vectors."""
        items = item_vectors(towers, self._set, ranks)
        told = self._scored(towers, items, ranks) if self._is_asked else self._helped(towers, ranks)
        found = ranks.from_first(told)
        prior = (found[2], found[3], found[4]) if self._has_prior else None
        return EpochScore(epoch, found[0], found[1], prior)

    def _scored(self, towers: TwoTower, items: FloatArray, ranks: Ranks) -> list[float]:
        """Returns the hit rate, that without prior, and the prior's three numbers if there is one."""
        if self._counts is None:
            plain = hit_rate(user_blocks(towers, self._set, ranks), items, self._set, self._k)
            return [plain, plain]
        chosen = scored_users(self._set.num_users, self._counts, self._k)
        kept: list[FloatArray] = []
        plain = hit_rate(_keeping(user_blocks(towers, self._set, ranks), chosen, kept), items, self._set, self._k)
        prior = self._prior(towers, chosen, np.concatenate(kept), items)
        # A second time rather than kept: vectors of all users would not fit everywhere.
        widened = (with_one(block) for block in user_blocks(towers, self._set, ranks))
        found = hit_rate(widened, with_prior(items, self._counts.values(prior)), self._set, self._k)
        return [found, plain, prior.popularity, prior.recent, prior.half_life_days]

    def _helped(self, towers: TwoTower, ranks: Ranks) -> list[float]:
        """Computes this process's share of the vectors that the first one asks for; returns as many numbers as it."""
        for _ in range(2 if self._has_prior else 1):
            deque(user_blocks(towers, self._set, ranks), maxlen=0)
        return [0.0] * (5 if self._has_prior else 2)

    def _prior(self, towers: TwoTower, chosen: IntArray, users: FloatArray, items: FloatArray) -> Prior:
        """Returns the prior that finds most of what the chosen users took."""
        assert self._counts is not None
        truth = self._set.truth
        owner = row_of(truth.offsets)
        place = np.full(self._set.num_users, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        is_asked = place[owner] >= 0
        with torch.no_grad():
            scale = float(towers.similarity_scale())
        asked = place[owner[is_asked]], truth.items[is_asked]
        return choose_prior(users, items, *asked, counts=self._counts, scale=scale, k=self._k)


def _keeping(blocks: Iterable[FloatArray], chosen: IntArray, kept: list[FloatArray]) -> Iterator[FloatArray]:
    """Yields the blocks as they come and keeps the rows that are chosen of all, ascending."""
    begin = 0
    for block in blocks:
        first, last = np.searchsorted(chosen, [begin, begin + len(block)])
        kept.append(block[chosen[first:last] - begin])
        begin += len(block)
        yield block
