"""Hit rates of any recommender on a split: one evaluator for ours and for every peer.

    hit_rate@200 = sum over users of |top 200 and truth| / sum over users of |truth|

Candidates are all items of the training part, found exactly. Filtered: without items that the user interacted with in the training part. Unfiltered: with them.

Belongs here: lists from vectors or scores, ranks, hit rates, their error and spread. Does not belong here: the recommenders.

Shapes: V users with truth, U users, I items, D vector width, K length of the lists, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import order_largest
from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets.core.evaluation.hits import hit_ranks
from dssm_assets.core.evaluation.rates import resampled_sums
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets_tests.benchmarks.quality_splits import Ints, Split

K = 200
BLOCK = 256
RESAMPLES = 1000
FILTERED, UNFILTERED = "filtered", "unfiltered"


class Recommender(Protocol):
    """Whatever can list items for users."""

    def lists(self, users: Ints, k: int, excluded: Exclusions | None) -> Ints:
        """Returns the k best items of each user [V, K], -1 where there is none."""


@dataclass(frozen=True)
class ByVectors:
    """Lists by the nearest item vectors."""

    users: npt.NDArray[np.float32]
    """[U, D]"""
    items: npt.NDArray[np.float32]
    """[I, D]"""
    metric: Metric = Metric.IP

    def lists(self, users: Ints, k: int, excluded: Exclusions | None) -> Ints:
        """Returns the k best items of each user by exact search."""
        return search(Corpus(self.items, self.metric), self.users[users], k, excluded=excluded)[0]


@dataclass(frozen=True)
class ByScores:
    """Lists by a dense block of scores."""

    score: Callable[[Ints], npt.NDArray[Any]]
    """Users -> scores of all items."""

    def lists(self, users: Ints, k: int, excluded: Exclusions | None) -> Ints:
        """Returns the k best items of each user, block by block."""
        found = np.full((len(users), k), -1, np.int64)
        for begin in range(0, len(users), BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, len(users)))
            scores = np.array(self.score(users[rows]))
            if excluded is not None:
                scores[excluded.select_users(rows).mask(scores.shape[1])] = -np.inf
            order = order_largest(scores, k)
            found[rows, : order.shape[1]] = np.where(np.isneginf(np.take_along_axis(scores, order, 1)), -1, order)
        return found


@dataclass(frozen=True)
class Run:
    """One seed of one recommender: the rank of every truth pair in both variants, and the speed of its training."""

    ranks: dict[str, Ints]
    """Variant -> place of each truth pair in its user's list, K if it is missing [P]."""
    split: Split
    samples_per_cpu_s: float

    def hits(self, variant: str) -> Ints:
        """Returns the hits of every user among the first K [V]."""
        is_hit = self.ranks[variant] < K
        return np.bincount(self.split.truth_row[is_hit], minlength=len(self.split.eval_users))

    def rate(self, variant: str) -> float:
        """Returns hit_rate@200."""
        return float(self.hits(variant).sum() / self.split.truth_counts().sum())

    def error(self, variant: str) -> float:
        """Returns the standard error of the rate: its standard deviation over resampled users."""
        counts = np.stack([self.hits(variant), self.split.truth_counts()], axis=1)
        sums = resampled_sums(counts, RESAMPLES, seed=0)
        return float((sums[:, 0] / sums[:, 1]).std())

    def means(self, ks: Sequence[int]) -> dict[str, float]:
        """Returns HR@k and NDCG@k of leave one out, seen items left out; users with an unknown item count as missed.

        With one held-out item per user, NDCG@k is the mean of 1 / log2(rank + 2), 0 from rank k on.
        """
        ranks, users = self.ranks[FILTERED], len(self.split.eval_users) + self.split.lost_users
        gains = 1.0 / np.log2(ranks + 2.0)
        found = {f"HR@{k}": float((ranks < k).sum() / users) for k in ks}
        return found | {f"NDCG@{k}": float(gains[ranks < k].sum() / users) for k in ks}


def scored(recommender: Recommender, split: Split, samples_per_cpu_s: float) -> Run:
    """Returns the ranks that a fitted recommender gives the truth of a split."""
    ranks = {}
    for variant, excluded in ((FILTERED, split.seen()), (UNFILTERED, None)):
        lists = recommender.lists(split.eval_users, K, excluded)
        found = hit_ranks(lists, split.truth_row, split.truth_item)
        ranks[variant] = np.where(found < lists.shape[1], found, K)  # a corpus below K has shorter lists
    return Run(ranks, split, samples_per_cpu_s)


def summary(runs: Sequence[Run], *, is_seeded: bool = True, ks: Sequence[int] = ()) -> dict[str, Any]:
    """Returns the mean over seeds, in the form of the JSON line; with `ks` also HR@k and NDCG@k.

    sd is the spread over seeds, None where one seed of a seeded recommender ran, 0 where the seed plays no part; se is the
    error that other users would make, mean over seeds.
    """
    found: dict[str, Any] = {}
    for variant in (FILTERED, UNFILTERED):
        rates = np.array([run.rate(variant) for run in runs])
        spread = float(rates.std(ddof=1)) if len(rates) > 1 else None
        found[variant] = {
            "hit_rate@200": float(rates.mean()),
            "sd": spread if is_seeded else 0.0,
            "se": float(np.mean([run.error(variant) for run in runs])),
        }
    if ks:
        means = [run.means(ks) for run in runs]
        found["means"] = {name: float(np.mean([one[name] for one in means])) for name in means[0]}
    found["samples_per_cpu_s"] = float(np.mean([run.samples_per_cpu_s for run in runs]))
    return found
