"""Vectors made ready for search: read from Arrow, checked, brought to unit length where the similarity asks for it.

Belongs here: what must hold for a matrix of vectors. Does not belong here: the search (`exact.py`).

Shapes: N vectors, D vector dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.config import Similarity
from dssm_assets.core.errors import Fault, InputError

Vectors = NDArray[np.float32]
SHOWN = 5


def matrix_of(column: pa.ChunkedArray | pa.Array, where: str) -> Vectors:
    """Returns float32 [N, D] of a fixed_size_list<float32>[D] column.

    Args:
        column: the vectors.
        where: what to call the column in an error.

    Raises:
        InputError: if the column has another type or a missing vector.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    remedy = "write vectors as fixed_size_list<float32>"
    if not pat.is_fixed_size_list(array.type) or not pat.is_floating(array.type.value_type):
        raise InputError(Fault(where, "fixed_size_list<float32>", str(array.type), remedy))
    values = array.flatten()
    if array.null_count or values.null_count:
        raise InputError(
            Fault(where, "no missing vectors", f"{array.null_count + values.null_count} nulls", "leave such rows out")
        )
    flat = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
    return flat.reshape(len(array), array.type.list_size)


def prepare(
    user_vectors: NDArray[np.floating[Any]],
    item_vectors: NDArray[np.floating[Any]],
    *,
    similarity: Similarity,
    user_ids: Any = None,
    item_ids: Any = None,
) -> tuple[Vectors, Vectors]:
    """Returns both matrices as float32, of unit length for COSINE, after checking every vector.

    A vector of zeros has no direction and scores every item alike; a NaN or an infinity makes every comparison false.
    Both are signs of a broken tower, so neither is ever turned into a score.

    Raises:
        InputError: naming how many vectors of each side are unusable and the first ids (row numbers without ids).
    """
    faults: list[Fault] = []
    if user_vectors.ndim != 2 or item_vectors.ndim != 2 or user_vectors.shape[1] != item_vectors.shape[1]:
        got = f"users {user_vectors.shape}, items {item_vectors.shape}"
        raise InputError(Fault("vectors", "two matrices of one width", got, "take both from the same model"))
    if not len(item_vectors):
        raise InputError(Fault("item vectors", "at least one", "none", "materialise item_vectors of this date"))
    for side, vectors, ids in (("user", user_vectors, user_ids), ("item", item_vectors, item_ids)):
        finite = np.isfinite(vectors).all(axis=1)
        faults += _fault(side, "not finite (NaN or infinity)", ~finite, ids)
        faults += _fault(side, "all zeros", finite & ~vectors.any(axis=1), ids)
    if faults:
        raise InputError(faults)
    return _scaled(user_vectors, similarity), _scaled(item_vectors, similarity)


def _fault(side: str, what: str, bad: NDArray[np.bool_], ids: Any) -> list[Fault]:
    rows = np.flatnonzero(bad)
    if not len(rows):
        return []
    first = [str(ids[int(row)]) if ids is not None else f"row {row}" for row in rows[:SHOWN]]
    more = "" if len(rows) <= SHOWN else ", ..."
    got = f"{len(rows)} of {len(bad)} {what}: {', '.join(first)}{more}"
    return [
        Fault(
            f"{side} vectors, {what}", "finite vectors that are not all zeros", got, "train the model again or drop these ids"
        )
    ]


def _scaled(vectors: NDArray[np.floating[Any]], similarity: Similarity) -> Vectors:
    if similarity is Similarity.INNER_PRODUCT:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    wide = np.asarray(vectors, dtype=np.float64)
    # The largest entry first, or squares of tiny entries would vanish and a real direction would look like zeros.
    wide = wide / np.abs(wide).max(axis=1, keepdims=True, initial=np.finfo(np.float64).tiny)
    return np.ascontiguousarray(wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True)), dtype=np.float32)
