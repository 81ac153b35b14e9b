"""Exact top-k search: the reference that every index is measured against.

Belongs here: the search over vectors and the selection from a block of scores, both with one tie rule. Does not belong
here: approximate indexes, and what the lists are used for (`core/evaluation`, the serving bundle).

The score of a pair is defined as the float32 nearest to the dot product summed in float64, dimension by dimension. A
matrix product in float32 depends in its last bits on blocks and threads, so it only proposes candidates here; the
order follows from the definition. Hence equal vectors tie exactly and the result is a function of the input alone.

Shapes: U users, B users of a block, I items, D vector dimension, K top-k, M candidates.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.config import Similarity
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.exclusions import Exclusions, Index, check_exclusions, no_exclusions
from dssm_assets.core.retrieval.vectors import Vectors, prepare

Scores = NDArray[np.float32]

MARGIN = 32
"""Candidates beyond k: the gap between rank k and the last of them proves that no unseen item belongs to the list."""
DEPTH_STEP = 256
"""Users are searched together with those who need about as many candidates."""
BRUTE_CELLS = 4_000_000
"""Scores held at once where every item of a user is scored."""


def top_k(
    user_vectors: NDArray[np.floating[Any]],
    item_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    similarity: Similarity,
    excluded: Exclusions | tuple[Index, Index] | None = None,
    block_size: int = 2048,
    user_ids: Any = None,
    item_ids: Any = None,
) -> tuple[Index, Scores]:
    """Returns each user's k best items: score descending, then item_index ascending, also across the cut at k.

    Args:
        user_vectors: [U, D].
        item_vectors: [I, D].
        k: length of the lists.
        similarity: COSINE (both sides are brought to unit length first) or INNER_PRODUCT.
        excluded: items that a user must not be given: (indptr int64 [U + 1], indices int64).
        block_size: users searched at once. It changes the speed, never the result.
        user_ids: names for error messages.
        item_ids: names for error messages.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K]; where fewer than k items remain, -1 and -inf.

    Raises:
        InputError: for NaN, infinite or zero vectors, naming how many and the first ids, and for exclusions that do not fit.
    """
    if k < 1:
        raise InputError(Fault("top_k, k", "at least 1", str(k), "ask for a longer list"))
    users, items = prepare(user_vectors, item_vectors, similarity=similarity, user_ids=user_ids, item_ids=item_ids)
    num_users, num_items = len(users), len(items)
    kept_out = no_exclusions(num_users) if excluded is None else Exclusions(*excluded)
    check_exclusions(kept_out, num_users, num_items)
    index = np.full((num_users, k), -1, dtype=np.int64)
    scores = np.full((num_users, k), -np.inf, dtype=np.float32)
    by_dimension = np.ascontiguousarray(items.T)  # [D, I]
    need = k + MARGIN + kept_out.lengths
    depths = np.minimum(-(-need // DEPTH_STEP) * DEPTH_STEP, num_items)
    for depth in np.unique(depths):
        rows = np.flatnonzero(depths == depth)
        for start in range(0, len(rows), block_size):
            block = rows[start : start + block_size]
            found = _search(users[block], items, by_dimension, k, int(depth), kept_out.take(block))
            index[block], scores[block] = found
    return index, scores


def top_k_scores(
    scores: NDArray[np.floating[Any]], k: int, excluded: Exclusions | tuple[Index, Index] | None = None
) -> tuple[Index, Scores]:
    """Returns the k best of each row of a dense block under the tie rule of `top_k`. A score of -inf is no candidate.

    Args:
        scores: [B, I]; not changed.
        k: length of the lists.
        excluded: items left out, one row of the exclusions per row of the block.

    Raises:
        InputError: if a score is NaN or the exclusions do not fit.
    """
    num_users, num_items = scores.shape
    missing = int(np.isnan(scores).sum())
    if missing:
        raise InputError(Fault("scores", "numbers", f"{missing} NaN", "find the scorer that divides by zero"))
    if excluded is not None:
        kept_out = Exclusions(*excluded)
        check_exclusions(kept_out, num_users, num_items)
        scores = np.where(kept_out.mask(num_items), scores.dtype.type(-np.inf), scores)
    kept = min(k, num_items)
    index = np.full((num_users, k), -1, dtype=np.int64)
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    if kept == 0 or num_users == 0:
        return index, best
    cut = np.partition(scores, num_items - kept, axis=1)[:, num_items - kept, None]  # [B, 1], the k-th best score
    above, level = scores > cut, scores == cut
    room = kept - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))  # of the tied ones, the lowest indices
    candidates = np.nonzero(chosen)[1].reshape(num_users, kept)
    values = np.take_along_axis(scores, candidates, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    candidates, values = np.take_along_axis(candidates, order, axis=1), np.take_along_axis(values, order, axis=1)
    index[:, :kept] = np.where(np.isneginf(values), -1, candidates)
    best[:, :kept] = values
    return index, best


def _search(
    users: Vectors, items: Vectors, by_dimension: Vectors, k: int, depth: int, excluded: Exclusions
) -> tuple[Index, Scores]:
    """Returns the lists of a block: candidates from faiss, scored by definition; rows without proof are scored in full."""
    if depth == len(items):
        return _brute_force(users, by_dimension, k, excluded)
    raw, found = faiss.knn(users, items, depth, metric=faiss.METRIC_INNER_PRODUCT)  # [B, depth], best first
    allowed = np.ones(found.shape, dtype=bool)
    if len(excluded.indices):
        allowed = ~_contains(excluded, found, len(items))
    kept = k + MARGIN  # depth >= kept + exclusions, so that many are always left
    first = np.argsort(~allowed, axis=1, kind="stable")[:, :kept]
    candidates = np.take_along_axis(found, first, axis=1).astype(np.int64)  # [B, M]
    unseen_at_most = np.take_along_axis(raw, first[:, -1:], axis=1)[:, 0]
    values = _defined_scores(users, by_dimension, candidates)
    order = np.lexsort((candidates, -values), axis=-1)[:, :k]
    index, scores = np.take_along_axis(candidates, order, axis=1), np.take_along_axis(values, order, axis=1)
    unproven = np.flatnonzero(scores[:, -1] <= unseen_at_most + _rounding(users, items))
    if len(unproven):
        index[unproven], scores[unproven] = _brute_force(users[unproven], by_dimension, k, excluded.take(unproven))
    return index, scores


def _rounding(users: Vectors, items: Vectors) -> NDArray[np.float32]:
    """Returns, per user, a bound on how far a float32 dot product lies from its definition (Higham, section 3.1)."""
    lengths = np.sqrt((users.astype(np.float64) ** 2).sum(axis=1))
    longest = float(np.sqrt((items.astype(np.float64) ** 2).sum(axis=1).max()))
    bound: NDArray[np.float32] = (2 * (users.shape[1] + 2) * 2.0**-24 * lengths * longest).astype(np.float32)
    return bound


def _contains(excluded: Exclusions, found: NDArray[np.integer[Any]], num_items: int) -> NDArray[np.bool_]:
    rows = np.repeat(np.arange(len(found)), excluded.lengths)
    taken = np.unique(rows * num_items + excluded.indices)
    wanted = np.arange(len(found))[:, None] * num_items + found
    place = np.minimum(np.searchsorted(taken, wanted), len(taken) - 1)
    result: NDArray[np.bool_] = taken[place] == wanted
    return result


def _defined_scores(users: Vectors, by_dimension: Vectors, candidates: Index | None) -> Scores:
    """Returns float32 [B, M] scores of the candidates, or [B, I] of every item, by the definition in the module docstring."""
    num_columns = by_dimension.shape[1] if candidates is None else candidates.shape[1]
    total = np.zeros((len(users), num_columns), dtype=np.float64)
    for dimension, values in enumerate(by_dimension):
        of_items = values[None, :] if candidates is None else values[candidates]
        total += users[:, dimension, None].astype(np.float64) * of_items
    return total.astype(np.float32)


def _brute_force(users: Vectors, by_dimension: Vectors, k: int, excluded: Exclusions) -> tuple[Index, Scores]:
    step = max(1, BRUTE_CELLS // by_dimension.shape[1])
    parts = [
        top_k_scores(
            _defined_scores(users[rows], by_dimension, None), k, excluded.take(rows) if len(excluded.indices) else None
        )
        for rows in (np.arange(start, min(start + step, len(users))) for start in range(0, len(users), step))
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
