"""Chooses the popularity prior with the best recall on the validation days.

A prior is tried in units of the loss's logits: score = u . v / temperature + a ln(count + 1) + w ln(recent + .3) + g growth. The
chosen a, w and g, times the temperature, are stored: they are then in units of the inner product that a search uses. Growth, this
week over last, is chosen after the others, if it surely finds more: in a shop before Christmas it does.

Counts are of the samples before the validation days. Ages run to the last of these samples, to the millisecond: in news,
where the last hour matters more than the month, a half-life of minutes is chosen. Strengths up to 4 are compared by hits;
beyond 4, the strength doubles for as long as that surely finds more.

Letters: U users, I items, C candidates of a user, K interests, P truth pairs, D vector width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, ItemSets, Mask
from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.evaluation.rates import is_sure_gain
from dssm_assets.core.models.prior import HALF_LIVES, Prior, ages_in_days, decayed_counts, weekly_growth
from dssm_assets.core.samples.sample_tables import ITEM_INDEX
from dssm_assets.core.training.data import TrainData

COARSE_HALF_LIVES = (1 / 12, 1.0, 7.0, 30.0)
"""Half-lives to try first; later only their neighbours are tried."""
COARSE_STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Strengths to try. The last one is doubled for as long as that surely finds more."""
FACTORS = (1.5, 1.2)
"""The best strengths are then multiplied and divided by these factors, one after the other."""
GROWTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Strengths of growth to try."""
WEAKEST = 0.25
"""The first strength above 0."""
MAX_SCORES = 4_000_000
"""Scores kept in memory. Only as many users as fit are used, evenly spaced."""
LIST_FACTOR = 4
"""A user's candidates are the best 4 k by score and the best 4 k by every count. For more than some 10,000 items these are not all."""

_Setting = tuple[float, float, float]


@dataclass(frozen=True)
class PriorSearch:
    """Chooses a prior from the items' counts before the validation days.

    Attributes:
        counts: samples of each item [I].
        recent: half-life -> time-decayed counts [I].
        growth: from `weekly_growth` [I].
    """

    counts: npt.NDArray[np.float64]
    recent: dict[float, npt.NDArray[np.float64]]
    growth: npt.NDArray[np.float64]

    @classmethod
    def from_days_before(cls, data: TrainData, first_day: int) -> PriorSearch:
        """Counts the samples before a day."""
        keys = data.read_keys(data.rows_of_days(0, first_day))
        return cls.from_samples(keys[ITEM_INDEX].astype("int64"), ages_in_days(keys[EVENT_TIME_MS]), data.num_items)

    @classmethod
    def from_samples(cls, items: IntArray, age_days: npt.NDArray[np.float64] | IntArray, num_items: int) -> PriorSearch:
        """Counts samples, given each sample's item and age in days."""
        recent = {half_life: decayed_counts(items, age_days, half_life, num_items) for half_life in HALF_LIVES}
        counts = np.bincount(items, minlength=num_items).astype(np.float64)
        return cls(counts, recent, weekly_growth(items, age_days, num_items))

    def item_values(self, prior: Prior) -> FloatArray:
        """Returns the prior of every item [I]."""
        return prior.values_for(self.counts, self.recent[prior.half_life_days], self.growth)

    def choose_users(self, num_users: int, k: int) -> IntArray:
        """Returns as many users as fit into memory, evenly spaced, ascending; their scores decide."""
        popular, depth = self._candidates(k)
        count = max(1, min(num_users, MAX_SCORES // (len(popular) + depth)))
        return np.unique(np.linspace(0, num_users - 1, count).astype(np.int64))

    def choose(
        self,
        users: FloatArray,
        items: FloatArray,
        truth: ItemSets,
        *,
        scale: float,
        k: int,
        excluded: ItemSets | None = None,
    ) -> Prior:
        """Returns the prior with most hits among the k best. Ties go to the first and weakest.

        Args:
            users: vectors of the users from `choose_users`, [U, D] or [U, K, D].
            items: vectors [I, D].
            truth: the items of each user to find, P pairs.
            scale: 1 / temperature.
            excluded: items left out of each user's list; none is in the user's truth.
        """
        scores = self.score_candidates(users, items * np.float32(scale), truth, k, excluded)
        hits: dict[_Setting, Mask] = {}

        def find_best(settings: Iterable[_Setting]) -> _Setting:
            tried = list(settings)
            for setting in tried:
                if setting not in hits:
                    hits[setting] = scores.find_hits(self.item_values(_prior(setting)), k)
            return max(tried, key=lambda setting: int(hits[setting].sum()))

        best = find_best(_coarse())
        while is_sure_gain(hits[stronger := find_best(_around(best, (1.0, 2.0)))].astype(np.int64) - hits[best]):
            best = stronger
        for factor in FACTORS:
            best = find_best(_around(best, (1 / factor, 1.0, factor)))
        values = self.item_values(_prior(best))
        growth_of_items = self.growth.astype(np.float32)
        found = [scores.find_hits(values + np.float32(one) * growth_of_items, k).astype(np.int64) for one in GROWTHS]
        most = max(range(len(GROWTHS)), key=lambda place: int(found[place].sum()))
        growth = GROWTHS[most] if is_sure_gain(found[most] - found[0]) else 0.0
        popularity, recent, half_life = best
        return _prior((popularity / scale, recent / scale, half_life)).model_copy(update={"growth": growth / scale})

    def score_candidates(
        self,
        users: FloatArray,
        items: FloatArray,
        truth: ItemSets,
        k: int,
        excluded: ItemSets | None = None,
    ) -> CandidateScores:
        """Returns the scores of the users' candidates and of their truth pairs. For the arguments see `choose`."""
        interests = users[:, None] if users.ndim == 2 else users  # [U, K, D]
        num_items, popular, depth = len(items), *self._candidates(k)
        left_out = ItemSets.empty(len(users)) if excluded is None else excluded
        kept, scores = (np.empty((len(users), depth + len(popular)), kind) for kind in (np.int64, np.float32))
        truth_scores = []
        step = max(1, MAX_SCORES // (num_items * interests.shape[1]))
        for begin in range(0, len(users), step):
            block = slice(begin, begin + step)
            chosen = interests[block]  # [B, K, D]
            # A product of two matrices, because NumPy would read all items again for each user in a three-dimensional product.
            products = chosen.reshape(-1, chosen.shape[2]) @ items.T
            whole = products.reshape(*chosen.shape[:2], num_items).max(1)  # [B, I]
            rows = np.arange(begin, begin + len(whole))
            unwanted, wanted = left_out.select_users(rows), truth.select_users(rows)
            whole[unwanted.users, unwanted.items] = -np.inf
            truth_scores.append(whole[wanted.users, wanted.items])
            best = np.argpartition(-whole, depth, axis=1)[:, :depth] if depth else np.empty((len(whole), 0), np.int64)
            kept[block] = np.concatenate([best, np.broadcast_to(popular, (len(best), len(popular)))], axis=1)
            scores[block] = np.take_along_axis(whole, kept[block], axis=1)
            scores[block, :depth][np.isin(best, popular)] = -np.inf  # else it would be in the list twice
        return CandidateScores(kept, scores, truth, np.concatenate(truth_scores))

    def _candidates(self, k: int) -> tuple[IntArray, int]:
        """Returns the candidates of all users (the items with the highest counts), and the number of further candidates per user."""
        depth, num_items = LIST_FACTOR * k, len(self.counts)
        if depth >= num_items:
            return np.arange(num_items, dtype=np.int64), 0
        lists = [np.argsort(-values, kind="stable")[:depth] for values in (self.counts, *self.recent.values(), self.growth)]
        return np.unique(np.concatenate(lists)), depth


@dataclass(frozen=True)
class CandidateScores:
    """The candidates of users [U, C] and their scores, and the scores of the truth pairs [P]."""

    items: IntArray
    scores: FloatArray
    truth: ItemSets
    truth_scores: FloatArray

    def find_hits(self, values: FloatArray, k: int) -> Mask:
        """Adds each item's prior to its scores. Marks the truth pairs that are among their user's k best, bool [P]."""
        if k >= self.scores.shape[1]:
            return np.ones(len(self.truth.items), np.bool_)
        totals = self.scores + values[self.items]
        kth = np.partition(totals, totals.shape[1] - k, axis=1)[:, totals.shape[1] - k]
        return np.asarray(self.truth_scores + values[self.truth.items] >= kth[self.truth.users])


def _prior(setting: _Setting) -> Prior:
    popularity, recent, half_life = setting
    return Prior(popularity=popularity, recent=recent, half_life_days=half_life)


def _coarse() -> Iterator[_Setting]:
    yield from ((popularity, 0.0, HALF_LIVES[0]) for popularity in COARSE_STRENGTHS)
    yield from product(COARSE_STRENGTHS, COARSE_STRENGTHS[1:], COARSE_HALF_LIVES)


def _around(best: _Setting, factors: Sequence[float]) -> Iterator[_Setting]:
    """Yields settings near the best: its strengths times each factor, weaker strengths first."""
    place = HALF_LIVES.index(best[2])
    strengths = ([strength * factor for factor in factors] if strength else (0.0, WEAKEST) for strength in best[:2])
    yield from product(*strengths, HALF_LIVES[max(0, place - 1) : place + 2])
