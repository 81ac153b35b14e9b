"""Exact top-k search, the reference for every approximate index.

`faiss.knn` proposes a few more than k items per user from products in float32. The proposed items are scored again by the
definition (`pair_scores`) and ordered by score descending, then item_index ascending, also across the cut at k. A list is proven
if no other item can score as much as its last item, rounding included. A user without a proof, for example with hundreds of ties,
gets more proposals, in the end all items. So the result depends on the input alone, not on processor, threads or block size.

Memory beyond the vectors: about `_BLOCK_CELLS` proposals with their scores.

A user may have several vectors (interests). The item's score is then the highest score of any vector.

Shapes: U users, B users of a block, V vectors of all users, M vectors per user, I items, C items to score, D vector dimension, K
top-k.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import take_top, top_k
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, row_of_value
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.retrieval.vectors import Metric, Vectors, pair_scores, prepare_vectors, vector_lengths

Scores = NDArray[np.float32]
Lists = tuple[IntArray, Scores]
"""item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf after the last item."""

BLOCK_SIZE = 4096
"""Users searched at once."""
_SPARE = 32
"""Items proposed in addition to k. So many prove most lists."""
_MORE = 8
"""A user without a proof gets about so many times as many additional proposals."""
_BLOCK_CELLS = 2**21
"""Most proposals of a block, so blocks with long lists have fewer users."""
_ROUNDING = 2.0**-23
"""Twice the largest rounding of a float32 operation, as a fraction of its result."""


class Corpus:
    """Items prepared for any number of searches. For cosine they have unit length."""

    def __init__(self, item_vectors: NDArray[np.floating[Any]], metric: Similarity | Metric) -> None:
        """Prepares the vectors of one item or more. They must be finite and, for cosine, not all zeros."""
        self.metric = Metric.from_similarity(metric)
        self.vectors = prepare_vectors(item_vectors, self.metric)

    def __len__(self) -> int:
        return len(self.vectors)

    def select_items(self, rows: IntArray) -> Corpus:
        selected = Corpus(self.vectors[rows], Metric.IP)  # they already have unit length if they must
        selected.metric = self.metric
        return selected

    @cached_property
    def longest(self) -> float:
        return float(vector_lengths(self.vectors).max())

    def propose_items(self, users: Vectors, count: int) -> tuple[IntArray, NDArray[np.float64]]:
        """Returns the `count` items [B, C] nearest to each user in float32, and the score that no other item exceeds [B].

        The bound includes twice the largest error of a dot product in float32, summed in any order (Higham, Accuracy and Stability
        of Numerical Algorithms, section 3.1).
        """
        is_l2, lengths = self.metric is Metric.L2, vector_lengths(users)
        quick, items = faiss.knn(users, self.vectors, count, metric=faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT)
        largest = (lengths + self.longest) ** 2 if is_l2 else lengths * self.longest  # size of the summed terms
        return items, (-quick if is_l2 else quick)[:, -1] + _ROUNDING * (users.shape[1] + 2) * largest


def search(
    corpus: Corpus,
    user_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    excluded: ItemSets | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
) -> Lists:
    """Returns each user's k best items: score descending, then item_index ascending, also across the cut at k.

    Args:
        user_vectors: finite [U, D]; not all zeros for cosine.
        excluded: items that must not be in a user's list.
        block_size: users searched at once. It changes memory and speed, never the result.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K] (L2: minus the squared distance). If fewer than k items remain, the
        list ends with -1 and -inf.
    """
    users = prepare_vectors(user_vectors, corpus.metric)
    exclusions = ItemSets.empty(len(users)) if excluded is None else excluded
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 1  # else few users would be compared pair by pair, three times as slowly
    index = np.full((len(users), k), -1, dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    pending, spare = np.arange(len(users)), _SPARE
    while len(pending):
        # Users with similar numbers of exclusions share a block, because all users of a block get equally many proposals.
        order = pending[np.argsort(exclusions.lengths[pending], kind="stable")]
        counts = np.minimum(k + spare + exclusions.lengths[order], len(corpus))
        is_proven = np.zeros(len(order), np.bool_)
        for part in _split_blocks(counts, block_size):
            block, count = order[part], int(counts[part][-1])
            index[block], scores[block], is_proven[part] = _search_block(
                corpus, users[block], k, count, exclusions.select_users(block)
            )
        pending, spare = order[~is_proven], len(corpus) if spare > _SPARE else _MORE * (spare + 1)
    return index, scores


def _split_blocks(counts: IntArray, block_size: int) -> Iterator[slice]:
    """Yields ranges of users. `counts`: each user's number of proposals, ascending."""
    start = 0
    while start < len(counts):
        last = min(start + block_size, len(counts))
        stop = min(last, start + max(1, _BLOCK_CELLS // int(counts[last - 1])))
        yield slice(start, stop)
        start = stop


def _search_block(
    corpus: Corpus, users: Vectors, k: int, count: int, excluded: ItemSets
) -> tuple[IntArray, Scores, NDArray[np.bool_]]:
    """Returns each user's list from `count` proposals, and whether it is proven. If all items are proposed, every list is proven."""
    is_whole = count == len(corpus)
    if is_whole:
        items, others = np.tile(np.arange(count), (len(users), 1)), np.full(len(users), -np.inf)
    else:
        items, others = corpus.propose_items(users, count)
    items[excluded.contains(np.arange(len(users))[:, None], items)] = -1
    items.sort(axis=1)  # so that ties go to the lower item_index
    rows = np.repeat(np.arange(len(users)), count)
    scores = pair_scores(users, corpus.vectors, rows, items.ravel(), corpus.metric).reshape(items.shape)
    scores[items < 0] = -np.inf
    top = top_k(scores, k)
    best = take_top(scores, top, -np.inf)
    return take_top(items, top), best, (best[:, -1] > others) | is_whole


def flatten_interests(user_vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.floating[Any]], IntArray]:
    """Flattens user vectors [U, M, D] or [U, D] to [U * M, D]. Also returns the bounds of each user's rows, int64 [U + 1]."""
    each = 1 if user_vectors.ndim == 2 else user_vectors.shape[1]
    return user_vectors.reshape(-1, user_vectors.shape[-1]), each * np.arange(len(user_vectors) + 1)


def search_interests(
    corpus: Corpus,
    vectors: NDArray[np.floating[Any]],
    bounds: IntArray,
    k: int,
    *,
    excluded: ItemSets | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
) -> tuple[IntArray, Scores]:
    """Returns each user's k best distinct items. An item's score is the highest score that any of the user's vectors gives it.

    Ties go to the lower item_index. A user without vectors gets an empty list.

    Example: items a = (1, 0), b = (0, 1), c = (.6, .8) and a user with the interests (1, 0) and (0, 1), inner product. a and
    b score 1, c scores max(.6, .8) = .8, so the two best are a and b.

    Args:
        vectors: [V, D], grouped by user.
        bounds: int64 [U + 1]: the vectors of user u are rows bounds[u] .. bounds[u + 1] - 1.
        excluded: items that must not be in a user's list.
        block_size: vectors searched at once.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K]; -1 and -inf after the last item.
    """
    owners = row_of_value(bounds)
    index, scores = search(
        corpus,
        vectors,
        k,
        excluded=None if excluded is None else excluded.select_users(owners),
        block_size=block_size,
        threads=threads,
    )
    return merge_lists(index, scores, bounds)


def score_interests(users: NDArray[np.floating[Any]], items: Vectors, columns: IntArray, metric: Metric) -> NDArray[np.float64]:
    """Returns the scores of some items for each user, float64 [U, C]: the highest score that any of the user's vectors gives.

    Args:
        users: [U, M, D].
        items: float32 [I, D], of unit length for cosine.
        columns: rows of items, int64 [U, C]; -1 is the last row.
    """
    vectors = prepare_vectors(users.reshape(-1, users.shape[2]), metric).astype(np.float64).reshape(users.shape)
    best = np.full(columns.shape, -np.inf)
    for user, own in enumerate(vectors):
        rows = np.take(items, columns[user], axis=0).astype(np.float64)
        for vector in own:  # rows are summed one by one, so that a sum does not depend on other rows
            if metric is Metric.L2:
                scores = -np.einsum("cd,cd->c", rows - vector, rows - vector)
            else:
                scores = np.einsum("cd,d->c", rows, vector)
            np.maximum(best[user], scores, out=best[user])
    with np.errstate(over="ignore"):  # scores beyond float32 become infinite
        return best.astype(np.float32).astype(np.float64) + 0  # -0 becomes 0


def merge_lists(index: IntArray, scores: Scores, bounds: IntArray) -> tuple[IntArray, Scores]:
    """Merges the lists of a user's vectors [V, K] into one list per user [U, K]: each item once, with its best score.

    Nothing is lost, because each of a user's k best items is among the k best of some vector.
    """
    k = index.shape[1]
    counts = np.diff(bounds)
    if (counts == 1).all():
        return index, scores
    owner = np.repeat(row_of_value(bounds), k)
    is_item = index.ravel() >= 0
    owner, item, score = owner[is_item], index.ravel()[is_item], scores.ravel()[is_item]
    order = np.lexsort((item, -score, owner))
    owner, item, score = owner[order], item[order], score[order]
    _, first = np.unique(owner * (item.max(initial=0) + 1) + item, return_index=True)
    first.sort()
    owner, item, score = owner[first], item[first], score[first]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    best = rank < k
    top = np.full((len(counts), k), -1, dtype=np.int64)
    values = np.full((len(counts), k), -np.inf, dtype=np.float32)
    top[owner[best], rank[best]], values[owner[best], rank[best]] = item[best], score[best]
    return top, values
