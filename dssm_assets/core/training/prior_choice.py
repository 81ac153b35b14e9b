"""Which popularity prior finds most of what happened on the validation days.

Belongs here: the choice, from coarse to fine, over scores that are computed once. Does not belong here: what a prior is
(`models/prior`), which towers are scored (`validation`).

A prior is tried in units of the loss's logits: score = u . v / temperature + a ln(count + 1) + w ln(recent + .3). What is
chosen is in units of the product, which is what is stored and searched: a and w times the temperature.

Counts are of the samples before the validation days, ages are whole days up to the first of them.

Letters: U users, I items, C candidates of a user, K interests, P truth pairs, D vector width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.models.prior import Prior, recent_counts

HALF_LIVES = (1.0, 3.0, 7.0, 30.0, 90.0)
"""Days in which a sample's share of the recent count halves."""
CELLS = 4_000_000
"""Scores that are kept: of so many users as fit, evenly chosen."""
LIST_FACTOR = 4
"""Candidates of a user are the best 4 k by its score and the best 4 k by every count; beyond 10,000 items or so fewer than all."""

_Setting = tuple[float, float, float]


@dataclass(frozen=True)
class Counts:
    """How often each item was taken before the days that are scored: in all, and lately by half-life [I]."""

    all: npt.NDArray[np.float64]
    recent: dict[float, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, items: IntArray, age_days: IntArray, num_items: int) -> Counts:
        """Returns the counts of samples: the item of each, and its age (1: the day before)."""
        recent = {half_life: recent_counts(items, age_days, half_life, num_items) for half_life in HALF_LIVES}
        return cls(np.bincount(items, minlength=num_items).astype(np.float64), recent)

    def values(self, prior: Prior) -> FloatArray:
        """Returns the prior of every item."""
        return prior.prior_of(self.all, self.recent[prior.half_life_days])


@dataclass(frozen=True)
class _Scores:
    """The candidates of the chosen users [U, C], their scores, and score, item and user of the truth pairs [P]."""

    items: IntArray
    scores: FloatArray
    truth_scores: FloatArray
    truth_items: IntArray
    truth_users: IntArray

    def hits(self, values: FloatArray, k: int) -> int:
        """Returns how many truth pairs are among their user's k best when an item's value is added to its score."""
        if k >= self.scores.shape[1]:
            return len(self.truth_items)
        whole = self.scores + (values[None] if self.items.size == 0 else values[self.items])
        kth = np.partition(whole, whole.shape[1] - k, axis=1)[:, whole.shape[1] - k]
        return int((self.truth_scores + values[self.truth_items] >= kth[self.truth_users]).sum())


def scored_users(num_users: int, counts: Counts, k: int) -> IntArray:
    """Returns the users whose scores decide, ascending and evenly chosen: as many as fit."""
    count = max(1, min(num_users, CELLS // _width(counts, k)))
    return np.unique(np.linspace(0, num_users - 1, count).astype(np.int64))


def choose_prior(
    users: FloatArray, items: FloatArray, truth_users: IntArray, truth_items: IntArray, *, counts: Counts, scale: float, k: int
) -> Prior:
    """Returns the prior with most hits among the k best; of equal ones the first and weakest.

    Args:
        users: vectors [U, D] or [U, K, D].
        items: vectors [I, D].
        truth_users: user of each pair [P].
        truth_items: item of each pair [P].
        counts: of the items.
        scale: 1 / temperature.
        k: length of the lists.
    """
    scores = _scores(users, items * np.float32(scale), (truth_users, truth_items), counts, k)
    best: _Setting = (0.0, 0.0, HALF_LIVES[0])
    most = -1
    for stage in (_coarse, _near, _fine):
        for setting in stage(best):
            hits = scores.hits(counts.values(_prior(setting)), k)
            if hits > most:
                most, best = hits, setting
    popularity, recent, half_life = best
    return _prior((popularity / scale, recent / scale, half_life))


def _prior(setting: _Setting) -> Prior:
    popularity, recent, half_life = setting
    return Prior(popularity=popularity, recent=recent, half_life_days=half_life)


def _coarse(_: _Setting) -> Iterator[_Setting]:
    strengths = (0.0, 0.5, 1.0, 2.0)
    yield from ((popularity, 0.0, HALF_LIVES[0]) for popularity in strengths)
    yield from product(strengths, strengths[1:], (3.0, 30.0))


def _near(best: _Setting) -> Iterator[_Setting]:
    yield from product(_around(best[0], 0.25), _around(best[1], 0.25), HALF_LIVES)


def _fine(best: _Setting) -> Iterator[_Setting]:
    yield from product(_around(best[0], 0.125), _around(best[1], 0.125), (best[2],))


def _around(strength: float, step: float) -> Iterable[float]:
    return [value for value in (strength - step, strength, strength + step) if value >= 0]


def _scores(users: FloatArray, items: FloatArray, truth: tuple[IntArray, IntArray], counts: Counts, k: int) -> _Scores:
    each = users[:, None] if users.ndim == 2 else users  # [U, K, D]
    num_items, depth = len(items), LIST_FACTOR * k
    shared = _best_by_count(counts, depth)
    width = _width(counts, k)
    is_whole = width == num_items
    rows = scored_users(len(users), counts, k)
    place = np.full(len(users), -1, np.int64)
    place[rows] = np.arange(len(rows))
    owner = place[truth[0]]
    asked = owner >= 0
    owner, wanted = owner[asked], truth[1][asked]
    found, kept = np.empty((len(rows), width), np.float32), np.zeros((0 if is_whole else len(rows), width), np.int64)
    of_truth = np.empty(len(owner), np.float32)
    step = max(1, CELLS // (num_items * each.shape[1]))
    for begin in range(0, len(rows), step):
        block = slice(begin, begin + step)
        whole = (each[rows[block]] @ items.T).max(1)  # [B, I]
        here = (owner >= begin) & (owner < begin + step)
        of_truth[here] = whole[owner[here] - begin, wanted[here]]
        if is_whole:
            found[block] = whole
            continue
        own = np.argpartition(whole, num_items - depth, axis=1)[:, num_items - depth :]
        kept[block] = np.concatenate([own, np.broadcast_to(shared, (len(own), len(shared)))], axis=1)
        found[block] = np.take_along_axis(whole, kept[block], axis=1)
        found[block, :depth][np.isin(own, shared)] = -np.inf  # else it would stand in the list twice
    return _Scores(kept, found, of_truth, wanted, owner)


def _width(counts: Counts, k: int) -> int:
    """Returns how many candidates a user has; all items where these are no more."""
    depth = LIST_FACTOR * k
    return min(len(counts.all), len(_best_by_count(counts, depth)) + depth)


def _best_by_count(counts: Counts, depth: int) -> IntArray:
    """Returns the items that any of the counts has among its most."""
    if depth >= len(counts.all):
        return np.arange(len(counts.all), dtype=np.int64)
    lists = [np.argsort(-values, kind="stable")[:depth] for values in (counts.all, *counts.recent.values())]
    return np.unique(np.concatenate(lists))
