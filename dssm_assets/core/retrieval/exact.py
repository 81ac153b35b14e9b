"""Exact top-k search: the reference that every index is measured against.

`faiss.knn` proposes somewhat more than k items per user by products in float32. The proposals are scored again by the
definition (`pair_scores`) and ordered by score descending, then item_index ascending, also across the cut at k. A list is
proven if every item that was not proposed scores less than its last item, rounding included. A user without such a proof, for
example because hundreds of items tie, is searched again among all items. So the result depends on the input alone, not on
the processor, the threads or the block size.

Memory beyond the vectors: about `_BLOCK_CELLS` proposals with their scores. L2 needs a copy of the items.

Shapes: U users, B users of a block, I items, D vector dimension, K top-k, N proposals per user.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import order_largest
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, check_exclusions, no_exclusions
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.vectors import Metric, Vectors, check_vectors, pair_scores, prepare_vectors, vector_lengths

Scores = NDArray[np.float32]
Lists = tuple[IntArray, Scores]
"""item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf where there is no item."""

BLOCK_SIZE = 4096
"""Users searched at once."""
_SPARE = 32
"""Items proposed beyond k: enough to prove most lists."""
_BLOCK_CELLS = 2**21
"""Proposals of a block, at most: long lists make blocks smaller."""
_HALF_ULP = 2.0**-24
"""Half the distance from 1 to the next float32: how far one rounding moves a number, relatively."""
_SMALLEST = 2.0**-125
"""More than is lost where a float32 product or sum falls below the smallest normal number."""
_LONGEST = 1e37
"""Products of lengths beyond which float32 may overflow."""


class Corpus:
    """Items ready to be searched, any number of times: checked, and of unit length for cosine."""

    def __init__(
        self,
        item_vectors: NDArray[np.floating[Any]],
        metric: Similarity | Metric,
        item_ids: Any = None,
        *,
        is_checked: bool = False,
    ) -> None:
        """Checks the items, unless they were, and brings them into shape.

        Raises:
            InputError: for an empty corpus, NaN, infinite or zero vectors, naming how many and the first ids.
        """
        self.metric = Metric.from_similarity(metric)
        if not is_checked:
            check_vectors({"item": (item_vectors, item_ids)})
        self.vectors = prepare_vectors(item_vectors, self.metric)

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def longest(self) -> float:
        return float(vector_lengths(self.vectors).max())

    @cached_property
    def quick_items(self) -> Vectors:
        """Returns the items [I, D] whose inner product with `quick_users` orders them.

        For L2 [I, D + 1], with -|i|^2 / 2 as the last column: u.i - |i|^2 / 2 orders items as minus the squared distance does.
        """
        if self.metric is not Metric.L2:
            return self.vectors
        half = vector_lengths(self.vectors) ** 2 / 2
        with np.errstate(over="ignore"):  # such vectors are too long, and no quick score of them is used
            return np.concatenate([self.vectors, -half[:, None].astype(np.float32)], axis=1)

    @cached_property
    def _longest_quick(self) -> float:
        return self.longest if self.metric is not Metric.L2 else float(vector_lengths(self.quick_items).max())

    def quick_users(self, users: Vectors) -> QuickUsers:
        """Returns users [B, D] with the bound on how far their quick scores lie from the defined ones.

        The bound is that of a dot product in float32, summed in any order (Higham, Accuracy and Stability of Numerical
        Algorithms, section 3.1), doubled. It is infinite for vectors so long that products may overflow.
        """
        lengths = vector_lengths(users)
        scale, shift = np.ones(len(users)), np.zeros(len(users))
        if self.metric is Metric.L2:
            scale, shift = np.full(len(users), 0.5), lengths**2 / 2
            users = np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1)
            margin = _HALF_ULP * np.sqrt(lengths**2 + 1) * self._longest_quick
        else:
            margin = _HALF_ULP * lengths * self.longest
        margin = 2 * (users.shape[1] + 2) * (margin + _SMALLEST)
        if self.metric is Metric.L2:
            margin += 2 * _HALF_ULP * (lengths + self.longest) ** 2  # of the defined score itself
        is_too_long = lengths * max(self.longest, 1.0) + self.longest**2 >= _LONGEST
        return QuickUsers(users, scale, shift, np.where(is_too_long, np.inf, margin))


class QuickUsers(NamedTuple):
    """Users of a block: |quick score - (score * scale + shift)| <= margin for every item."""

    vectors: Vectors
    scale: NDArray[np.float64]
    """[B], above 0."""
    shift: NDArray[np.float64]
    """[B]"""
    margin: NDArray[np.float64]
    """[B]"""


def search(
    corpus: Corpus,
    user_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    excluded: Exclusions | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    is_checked: bool = False,
) -> Lists:
    """Returns each user's k best items: score descending, then item_index ascending, also across the cut at k.

    Args:
        user_vectors: [U, D].
        excluded: items that a user must not be given.
        block_size: users searched at once: memory against speed, never the result.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K] (L2: minus the squared distance); where fewer than k items
        remain, -1 and -inf.

    Raises:
        InputError: for NaN, infinite or zero vectors, naming how many and the first ids, and for exclusions that do not fit.
    """
    if k < 1:
        raise InputError(Fault("search, k", "at least 1", str(k), "ask for a longer list"))
    if not is_checked:
        check_vectors({"user": (user_vectors, user_ids)}, width=corpus.vectors.shape[1])
    users = prepare_vectors(user_vectors, corpus.metric)
    exclusions = no_exclusions(len(users)) if excluded is None else excluded
    check_exclusions(exclusions, len(users), len(corpus))
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 1  # few users are otherwise compared pair by pair, in three times the time
    index = np.full((len(users), k), -1, dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    # Users with similar numbers of exclusions share a block, because all users of a block get equally many proposals.
    order = np.argsort(exclusions.lengths, kind="stable")
    proposals = np.minimum(k + _SPARE + exclusions.lengths[order], len(corpus))
    for part in _split_blocks(proposals, block_size):
        block = order[part]
        index[block], scores[block] = _search_block(
            corpus, users[block], k, int(proposals[part][-1]), exclusions.select_users(block)
        )
    return index, scores


def _split_blocks(proposals: IntArray, block_size: int) -> Iterator[slice]:
    """Yields ranges of users, given the number of proposals of each, ascending."""
    start = 0
    while start < len(proposals):
        stop = min(start + block_size, len(proposals))
        while stop - start > 1 and (stop - start) * proposals[stop - 1] > _BLOCK_CELLS:
            stop = start + (stop - start) // 2
        yield slice(start, stop)
        start = stop


def _search_block(corpus: Corpus, users: Vectors, k: int, count: int, excluded: Exclusions) -> Lists:
    """Returns the lists of users [B, D] from `count` proposals each; at least K + _SPARE of them are not excluded, or all are left."""
    quick = corpus.quick_users(users)
    with np.errstate(over="ignore", invalid="ignore"):  # where products may overflow, the margin is infinite
        proposed, items = faiss.knn(quick.vectors, corpus.quick_items, count, metric=faiss.METRIC_INNER_PRODUCT)
    # No other item has a quick score above the least of the proposals.
    floor = proposed[:, -1] if count < len(corpus) else np.full(len(users), -np.inf)
    items[excluded.contains(np.arange(len(users))[:, None], items)] = -1
    items.sort(axis=1)  # of equal scores the lower item_index comes first
    rows = np.repeat(np.arange(len(users)), count)
    scores = pair_scores(users, corpus.vectors, rows, items.ravel(), corpus.metric).reshape(items.shape)
    scores[items < 0] = -np.inf
    index, best = _order_lists(items, scores, k)
    worst = best[:, -1] * quick.scale + quick.shift - quick.margin  # least quick score of the k-th best [B]
    is_proven = (worst > floor) | (np.isneginf(floor) & np.isfinite(quick.margin))
    for row in np.flatnonzero(~is_proven):
        own = excluded.indices[excluded.indptr[row] : excluded.indptr[row + 1]]
        index[row], best[row] = _search_all_items(corpus, users[[row]], k, own)
    return index, best


def _search_all_items(corpus: Corpus, user: Vectors, k: int, excluded: IntArray) -> Lists:
    """Returns the list of one user [1, D] from the quick scores of all items.

    Let q be the k-th highest quick score. k items have defined scores of at least q - margin, so each of the k best has one
    too, and a quick score of at least q - 2 * margin. All items with such quick scores are scored by the definition.
    """
    quick, kept = corpus.quick_users(user), min(k, len(corpus))
    with np.errstate(over="ignore", invalid="ignore"):
        scores = corpus.quick_items @ quick.vectors[0]
        scores[excluded] = -np.inf
        reached = np.partition(scores, len(corpus) - kept)[len(corpus) - kept] - 2 * quick.margin[0]
    is_candidate = ~(scores < reached)  # also where a product overflowed to NaN
    is_candidate[excluded] = False
    items = np.flatnonzero(is_candidate)
    return _order_lists(items[None], pair_scores(user, corpus.vectors, np.zeros_like(items), items, corpus.metric)[None], k)


def _order_lists(items: IntArray, scores: Scores, k: int) -> Lists:
    """Returns the k best of each row: score descending, then in the order given; a score of -inf is no item."""
    order = order_largest(scores, k)
    values = np.take_along_axis(scores, order, axis=1)
    index = np.full((len(items), k), -1, dtype=np.int64)
    best = np.full((len(items), k), -np.inf, dtype=np.float32)
    index[:, : order.shape[1]] = np.where(np.isneginf(values), -1, np.take_along_axis(items, order, axis=1))
    best[:, : order.shape[1]] = values
    return index, best
