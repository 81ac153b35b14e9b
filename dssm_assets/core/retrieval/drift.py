"""Drift measures how far the vectors of the same ids have moved between two partitions.

Rotating or mirroring all vectors changes no score. Two independently trained models may differ only by a rotation. Then the
cosine between an id's two vectors is near 0 although nothing has changed. So raw cosines only mean something if the later
model started from the earlier one.

Therefore the vectors are aligned first. An orthogonal matrix R brings the day's vectors closest to the earlier vectors: R = U
V^T, where A^T B = U S V^T is the singular value decomposition and A and B are the unit vectors of the common ids
(Schoenemann, "A generalized solution of the orthogonal Procrustes problem", 1966). A rotation fitted to few ids would align
noise with noise. Hence the ids are split into two halves, and each half is measured with the rotation fitted to the other.

The verdict uses the mean cosine after alignment. The report has the raw mean cosine, too.

Shapes: N compared common ids, D vector dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.retrieval.vectors import Metric, Vectors, find_unusable, prepare_vectors

IDS_PER_DIMENSION: Final = 2
"""An alignment needs so many ids per dimension: with fewer ids than dimensions in a half, its rotation is partly arbitrary."""
MIN_COSINE: Final = 0.5


def find_common_ids(now: pa.ChunkedArray, before: pa.ChunkedArray, *, limit: int, seed: int) -> tuple[pa.Array, int]:
    """Returns common ids, int64 or string, ascending, and their number. Of more than `limit`, it returns a sample drawn by the seed.

    Integer ids and text ids are never common.

    Args:
        now: unique ids.
        before: unique ids.

    Raises:
        SchemaError: ids are neither integers nor text, or are null.
    """
    current = combine_chunks(comparable_ids(now, "ids of the partition"))
    previous = combine_chunks(comparable_ids(before, "ids of the partition before"))
    ids = current.filter(pc.is_in(current, value_set=previous)) if current.type == previous.type else current.slice(0, 0)
    common = len(ids)
    ids = ids.take(pc.sort_indices(ids))
    if common > limit:
        ids = ids.take(pa.array(np.sort(np.random.default_rng(seed).choice(common, limit, replace=False))))
    return ids, common


@dataclass(frozen=True)
class Drift:
    """The drift of the vectors of N ids.

    Attributes:
        compared_count: number of ids whose two vectors are both finite and not all zeros.
        raw: mean cosine between the two vectors of each such id, before alignment. None if there is no such id.
        aligned: mean cosine after alignment, None if there are too few ids or the widths differ.
    """

    compared_count: int
    raw: float | None
    aligned: float | None


def compute_drift(now: NDArray[np.floating[Any]], before: NDArray[np.floating[Any]], *, seed: int) -> Drift:
    """Returns the drift between two matrices with one row per id, in the same order.

    By hand: before = (1, 0), (0, 1), ... and now = (0, 1), (-1, 0), ... (a quarter turn): raw cosines 0, aligned 1.

    Args:
        now: [N, D].
        before: [N, D']. If D' differs from D, nothing can be compared.
    """
    if now.shape[1] != before.shape[1]:
        return Drift(0, None, None)
    is_usable = ~np.logical_or.reduce([*find_unusable(now).values(), *find_unusable(before).values()])
    first, second = (prepare_vectors(vectors[is_usable], Metric.COSINE) for vectors in (now, before))
    count, dims = first.shape
    if not count:
        return Drift(0, None, None)
    raw = float((first * second).sum(axis=1, dtype=np.float64).mean())
    if count < IDS_PER_DIMENSION * dims:
        return Drift(count, raw, None)
    order = np.random.default_rng(seed).permutation(count)
    halves = order[: count // 2], order[count // 2 :]
    aligned = 0.0
    for fitted, measured in (halves, halves[::-1]):
        turned = first[measured] @ fit_rotation(first[fitted], second[fitted])
        aligned += float((turned * second[measured]).sum(dtype=np.float64)) / count
    return Drift(count, raw, aligned)


def fit_rotation(rows: Vectors, targets: Vectors) -> Vectors:
    """Returns the orthogonal matrix R [D, D] that minimises the summed squared distance between rows @ R and targets."""
    left, _, right = np.linalg.svd((rows.T @ targets).astype(np.float64))
    return np.asarray(left @ right, np.float32)


def judge_drift(
    drift: Drift, *, day: str, common_count: int, before_count: int, width: int
) -> tuple[bool, str, dict[str, Any]]:
    """Returns whether the mean cosine after alignment reaches the floor, a sentence, and the figures.

    Vectors that cannot be aligned pass only if the earlier partition already had too few ids. They do not pass if ids were
    replaced or the width has changed, because users of stored vectors must know.

    Args:
        day: day of the partition before.
        common_count: number of common ids.
        before_count: number of ids of the partition before.
        width: floats per vector in the current partition.
    """
    count, raw, aligned, needed = drift.compared_count, drift.raw, drift.aligned, IDS_PER_DIMENSION * width
    facts: dict[str, Any] = {"drift_against": day, "drift_common_ids": common_count, "drift_compared_ids": count}
    cosines = {"drift_cosine_raw_mean": raw, "drift_cosine_aligned_mean": aligned}
    facts |= {name: cosine for name, cosine in cosines.items() if cosine is not None}
    if raw is None:
        sentence = f"nothing to compare with {day}: {common_count} ids in common, or vectors of another width"
    elif aligned is None:
        lacking = f"at least {needed} are needed to align {width} dimensions"
        sentence = f"{count} ids compared with {day}, {lacking}; raw mean cosine {raw:.4f}"
    else:
        cosine = f"mean cosine {aligned:.4f} after alignment (floor {MIN_COSINE:g}), raw {raw:.4f}"
        sentence = f"against {day}: {cosine}, over {count} of {common_count} common ids"
    return before_count < needed if aligned is None else aligned >= MIN_COSINE, sentence, facts
