"""Vectors made ready for search: read from Arrow, checked, brought to unit length where the similarity asks for it.

Belongs here: what must hold for a matrix of vectors. Does not belong here: the search (`exact.py`).

Shapes: N vectors, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.metrics import Metric

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


def check_vectors(sides: Mapping[str, tuple[NDArray[np.floating[Any]], Any]], width: int | None = None) -> None:
    """Checks every vector of the given sides at once.

    A vector of zeros has no direction and scores every item alike; a NaN or an infinity makes every comparison false.
    Both are signs of a broken tower, so neither is ever turned into a score.

    Args:
        sides: "user" or "item" -> its matrix [N, D] and its ids (None: row numbers are named).
        width: D, where the other side is not among them.

    Raises:
        InputError: naming how many vectors of each side are unusable and the first ids.
    """
    shapes = [matrix.shape for matrix, _ in sides.values()]
    widths = {shape[1] if len(shape) == 2 else -1 for shape in shapes} | ({width} if width is not None else set())
    if len(widths) > 1 or -1 in widths:
        got = ", ".join(f"{side}s {matrix.shape}" for side, (matrix, _) in sides.items())
        got += "" if width is None else f" against items of width {width}"
        raise InputError(Fault("vectors", "two matrices of one width", got, "take both from the same model"))
    if "item" in sides and not len(sides["item"][0]):
        raise InputError(Fault("item vectors", "at least one", "none", "materialise item_vectors of this date"))
    faults = [fault for side, (matrix, ids) in sides.items() for fault in vector_faults(side, matrix, ids)]
    if faults:
        raise InputError(faults)


def vector_faults(side: str, vectors: NDArray[np.floating[Any]], ids: Any) -> list[Fault]:
    """Returns a fault per kind of unusable vector: how many of it there are, and the first ids."""
    finite = np.isfinite(vectors).all(axis=1)
    return _fault(side, "not finite (NaN or infinity)", ~finite, ids) + _fault(
        side, "all zeros", finite & ~vectors.any(axis=1), ids
    )


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


def scaled(vectors: NDArray[np.floating[Any]], metric: Metric) -> Vectors:
    """Returns the vectors as float32, of unit length for cosine."""
    if metric is not Metric.COSINE:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    wide = np.asarray(vectors, dtype=np.float64)
    # The largest entry first, or squares of tiny entries would vanish and a real direction would look like zeros.
    wide = wide / np.abs(wide).max(axis=1, keepdims=True, initial=np.finfo(np.float64).tiny)
    return np.ascontiguousarray(wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True)), dtype=np.float32)
