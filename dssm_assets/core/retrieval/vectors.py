"""Vectors ready for search, and the definition of the score of two vectors.

A score is summed in float64, dimension by dimension, then rounded to float32. Inner product and cosine sum the products
(for cosine both vectors have unit length). L2 is minus the sum of squared differences, so that a higher score is better under
every metric. Unlike a matrix product in float32, this sum does not depend on blocks and threads.

Shapes: N vectors, U users, I items, P pairs, D vector dimension.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import format_ids
from dssm_assets.core.arrays.ragged import Mask, combine_chunks
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import Fault, InputError

Vectors = NDArray[np.float32]

_CELLS_AT_ONCE = 2**16
"""Pairs are scored in parts of about so many numbers, which fit the processor's cache."""


class Metric(StrEnum):
    """The score of two vectors."""

    IP = "ip"
    """Inner product."""
    COSINE = "cosine"
    """Inner product of the vectors scaled to unit length."""
    L2 = "l2"
    """Minus the squared distance."""

    @classmethod
    def from_similarity(cls, similarity: Similarity | Metric) -> Metric:
        """Returns the metric for the similarity of a trained model; a metric is returned unchanged."""
        if isinstance(similarity, Metric):
            return similarity
        return cls.COSINE if similarity is Similarity.COSINE else cls.IP


def to_matrix(column: pa.ChunkedArray | pa.Array, where: str) -> Vectors:
    """Converts a column of type fixed_size_list<float32>[D] to float32 [N, D].

    Raises:
        InputError: the column has another type or a missing vector.
    """
    array = combine_chunks(column)
    remedy = "write vectors as fixed_size_list<float32>"
    if not pat.is_fixed_size_list(array.type) or not pat.is_floating(array.type.value_type):
        raise InputError(Fault(where, "fixed_size_list<float32>", str(array.type), remedy))
    values = array.flatten()
    if array.null_count or values.null_count:
        got = f"{array.null_count + values.null_count} nulls"
        raise InputError(Fault(where, "no missing vectors", got, "leave such rows out"))
    flat = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
    return flat.reshape(len(array), array.type.list_size)


def to_lists(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """Converts vectors [N, D] to a column of type fixed_size_list<float32>[D]."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])


def find_unusable(vectors: NDArray[np.floating[Any]]) -> dict[str, Mask]:
    """Marks the vectors [N, D] that no search can use: kind of fault -> bool [N].

    A vector of zeros gives all items the same score. A NaN or an infinity makes every comparison false. Both are signs of a
    broken tower.
    """
    is_finite = np.isfinite(vectors).all(axis=1)
    return {"not finite (NaN or infinity)": ~is_finite, "all zeros": is_finite & ~vectors.any(axis=1)}


def vector_faults(side: str, vectors: NDArray[np.floating[Any]], ids: pa.Array) -> list[Fault]:
    """Returns a fault per kind of unusable vector, with their number and first ids. `side`: user or item."""
    expected, remedy = "finite vectors that are not all zeros", "train the model again or drop these ids"
    found = ((what, is_bad.nonzero()[0]) for what, is_bad in find_unusable(vectors).items())
    return [
        Fault(f"{side} vectors, {what}", expected, f"{len(rows)} of {len(vectors)} {what}: {format_ids(ids, rows)}", remedy)
        for what, rows in found
        if len(rows)
    ]


def prepare_vectors(vectors: NDArray[np.floating[Any]], metric: Metric) -> Vectors:
    """Returns the vectors as float32 [N, D], scaled to unit length for cosine."""
    if metric is not Metric.COSINE:
        return np.require(vectors, np.float32, ["C", "A"])  # aligned, because each read of an unaligned array would copy it
    unit = np.empty(vectors.shape, dtype=np.float32)
    step = max(1, _CELLS_AT_ONCE // max(vectors.shape[1], 1))
    for start in range(0, len(vectors), step):
        wide = np.array(vectors[start : start + step], dtype=np.float64, order="C")
        # Divided by the largest entry first; squares of tiny entries would underflow, and the vector would look like zeros.
        wide /= np.abs(wide).max(axis=1, keepdims=True, initial=np.finfo(np.float64).tiny)
        wide /= np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        unit[start : start + step] = wide
    return unit


def vector_lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the Euclidean length of each vector, float64 [N]."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


def pair_scores(users: Vectors, items: Vectors, rows: NDArray[Any], columns: NDArray[Any], metric: Metric) -> Vectors:
    """Returns float32 [P], the score of user rows[p] and item columns[p].

    Args:
        users: float32 [U, D], of unit length for cosine.
        items: float32 [I, D], of unit length for cosine.
        rows: [P], row of the pair's user.
        columns: [P], row of the pair's item.
    """
    total = np.empty(len(rows), dtype=np.float64)
    pairs_at_once = max(1, _CELLS_AT_ONCE // items.shape[1])
    for start in range(0, len(rows), pairs_at_once):
        part = slice(start, start + pairs_at_once)
        terms, of_user = np.take(items, columns[part], axis=0).astype(np.float64), np.take(users, rows[part], axis=0)
        if metric is Metric.L2:
            terms -= of_user
            np.multiply(terms, terms, out=terms)
        else:
            terms *= of_user
        np.add.reduce(np.ascontiguousarray(terms.T), axis=0, out=total[part])  # [D, P]: the sum runs over D in order
    with np.errstate(over="ignore"):  # sums beyond float32 become infinite
        return (0 - total if metric is Metric.L2 else total + 0).astype(np.float32)  # -0 becomes 0
