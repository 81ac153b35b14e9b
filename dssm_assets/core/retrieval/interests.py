"""Search for users with several vectors (interests).

Shapes: U users, V vectors of all users, I items, D vector dimension, M vectors per user, C items to score, K top-k.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray, row_of_value
from dssm_assets.core.retrieval.exact import BLOCK_SIZE, Corpus, Scores, search
from dssm_assets.core.retrieval.vectors import Metric, Vectors, prepare_vectors

_ITEMS_AT_ONCE: Final = 2048
"""Items scored at once, which stay in the cache."""


def flatten_interests(user_vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.floating[Any]], IntArray]:
    """Returns [U * M, D] and the bounds int64 [U + 1] of each user's rows, of user vectors [U, M, D] or [U, D]."""
    each = 1 if user_vectors.ndim == 2 else user_vectors.shape[1]
    flat = user_vectors.reshape(-1, user_vectors.shape[-1])
    return flat, np.arange(0, len(flat) + 1, max(each, 1), dtype=np.int64)


def search_interests(
    corpus: Corpus,
    vectors: NDArray[np.floating[Any]],
    bounds: IntArray,
    k: int,
    *,
    excluded: Exclusions | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    is_checked: bool = False,
) -> tuple[IntArray, Scores]:
    """Returns each user's k best items, an item scored by the best of the user's vectors; k counts distinct items.

    Ties go to the lower item_index, whichever vector found the item. A user without vectors gets an empty
    list.

    Example: items a = (1, 0), b = (0, 1), c = (.6, .8) and a user with the interests (1, 0) and (0, 1), inner product. a
    and b score 1, c scores max(.6, .8) = .8, so the two best are a and b.

    Args:
        vectors: [V, D], grouped by user.
        bounds: int64 [U + 1]: the vectors of user u are rows bounds[u] .. bounds[u + 1] - 1.
        excluded: per user.
        block_size: vectors searched at once.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K]; -1 and -inf where there is no item.

    Raises:
        InputError: as of `search`.
    """
    owners = row_of_value(bounds)
    index, scores = search(
        corpus,
        vectors,
        k,
        excluded=None if excluded is None else excluded.select_users(owners),
        block_size=block_size,
        threads=threads,
        user_ids=None if user_ids is None else user_ids.take(pa.array(owners)),
        is_checked=is_checked,
    )
    return merge_lists(index, scores, bounds)


def score_interests(users: NDArray[np.floating[Any]], items: Vectors, columns: IntArray, metric: Metric) -> NDArray[np.float64]:
    """Returns the scores of some items for each user, float64 [U, C]: by the definition, of the best of the user's vectors.

    Args:
        users: [U, M, D].
        items: float32 [I, D], of unit length for cosine.
        columns: rows of items, int64 [U, C]; -1 is the last one.
    """
    num_users, _, dims = users.shape
    vectors = prepare_vectors(users.reshape(-1, dims), metric).astype(np.float64).reshape(users.shape)
    best = np.full(columns.shape, -np.inf)
    for user, start in itertools.product(range(num_users), range(0, columns.shape[1], _ITEMS_AT_ONCE)):
        part = slice(start, start + _ITEMS_AT_ONCE)
        rows = np.take(items, columns[user, part], axis=0).astype(np.float64)
        for vector in vectors[user]:
            np.maximum(best[user, part], _score_rows(rows, vector, metric), out=best[user, part])
    with np.errstate(over="ignore"):  # scores beyond float32 become infinite
        return best.astype(np.float32).astype(np.float64) + 0  # -0 becomes 0


def _score_rows(rows: NDArray[np.float64], vector: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Returns the score of each row, summed for itself: the same whatever the other rows are."""
    if metric is not Metric.L2:
        found: NDArray[np.float64] = np.einsum("cd,d->c", rows, vector)
        return found
    gaps = rows - vector
    squares: NDArray[np.float64] = np.einsum("cd,cd->c", gaps, gaps)
    return -squares


def merge_lists(index: IntArray, scores: Scores, bounds: IntArray) -> tuple[IntArray, Scores]:
    """Returns the [U, K] lists of users from the [V, K] lists of their vectors: each item once, with its best score.

    Nothing is lost: one of a user's k best items is also among the k best of the vector that scores it highest.
    """
    k = index.shape[1]
    counts = np.diff(bounds)
    if (counts == 1).all():
        return index, scores
    owner = np.repeat(row_of_value(bounds), k)
    is_item = index.ravel() >= 0
    owner, item, score = owner[is_item], index.ravel()[is_item], scores.ravel()[is_item]
    order = np.lexsort((-score, item, owner))
    owner, item, score = owner[order], item[order], score[order]
    is_first = np.ones(len(owner), bool)
    is_first[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
    owner, item, score = owner[is_first], item[is_first], score[is_first]
    order = np.lexsort((item, -score, owner))
    owner, item, score = owner[order], item[order], score[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    best = rank < k
    top = np.full((len(counts), k), -1, dtype=np.int64)
    values = np.full((len(counts), k), -np.inf, dtype=np.float32)
    top[owner[best], rank[best]], values[owner[best], rank[best]] = item[best], score[best]
    return top, values
