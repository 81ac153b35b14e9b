"""What decides between epochs: the score of towers on the validation days, with the prior that suits them.

Belongs here: `Judge`. Does not belong here: the hit rate (`validation`), the choice of a prior (`prior_choice`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import FloatArray, row_of
from dssm_assets.core.models.prior import with_one, with_prior
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.samples.specs import DAY, ITEM_INDEX
from dssm_assets.core.training.distributed import Ranks
from dssm_assets.core.training.fit_state import EpochScore
from dssm_assets.core.training.prior_choice import Counts, choose_prior
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training.validation import cut_of, hit_rate, vectors_of


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
        vectors = vectors_of(towers, self._set, ranks)
        found = ranks.from_first(self._scored(*vectors, towers) if self._is_asked else [0.0] * (5 if self._has_prior else 2))
        prior = (found[2], found[3], found[4]) if self._has_prior else None
        return EpochScore(epoch, found[0], found[1], prior)

    def _scored(self, users: FloatArray, items: FloatArray, towers: TwoTower) -> list[float]:
        """Returns the hit rate, that without prior, and the prior's three numbers if there is one."""
        plain = hit_rate(users, items, self._set, self._k)
        if self._counts is None:
            return [plain, plain]
        truth = self._set.truth
        with torch.no_grad():
            scale = float(towers.similarity_scale())
        prior = choose_prior(
            users,
            items,
            row_of(truth.offsets),
            truth.items,
            counts=self._counts,
            scale=scale,
            k=self._k,
        )
        widened = with_one(users), with_prior(items, self._counts.values(prior))
        return [hit_rate(*widened, self._set, self._k), plain, prior.popularity, prior.recent, prior.half_life_days]
