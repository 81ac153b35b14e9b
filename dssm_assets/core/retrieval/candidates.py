"""Candidates of a block of users: few items per user that, with the check in `ranking.py`, contain its k best.

Belongs here: choosing pairs by coarse scores. Does not belong here: the coarse scores (`coarse.py`), the order and the
proof (`ranking.py`).

A sample of the items tells, per user, a score that somewhat more than k items should reach. One pass over all items,
chunk by chunk, keeps the pairs that reach it. The sample decides how many they are and how often a proof fails, never
the result.

Shapes: B users of a block, I items, C items of a chunk, S sampled items, P pairs kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.retrieval.coarse import Coarse, Query

SAMPLED = 16_384
"""Sampled items; a corpus up to this size is its own sample."""
CHUNK = 512
"""Items multiplied at once: their scores stay in the processor's cache."""
CAP = 8192
"""Pairs of one user beyond which it is given up, so that ties without end cannot fill the memory."""


class Sample:
    """Items that stand for all of them, drawn with a fixed seed, and the rank to ask for among them."""

    def __init__(self, num_items: int, k: int, slack: int = 1) -> None:
        """Draws the items; with more slack k items reach the score more surely, and there are more candidates."""
        self.num_items = num_items
        count = min(num_items, max(SAMPLED, 8 * k))
        self.rows = np.sort(np.random.Generator(np.random.PCG64(0)).permutation(num_items)[:count]).astype(np.int64)
        self.is_whole = count == num_items
        expected = k * count / num_items
        self.rank = min(count, k if self.is_whole else int(np.ceil(expected + slack * (2.5 * np.sqrt(expected) + 2))))
        self.group = next(size for size in (32, 16, 8, 4, 2, 1) if size == 1 or count >= 4 * size * self.rank)
        """Of so many sampled items only the best counts: the scores at the rank are a little lower, and quicker to find."""

    @property
    def expected(self) -> int:
        """Returns about how many items reach the score."""
        return self.rank * -(-self.num_items // len(self.rows))

    @cached_property
    def place(self) -> IntArray:
        """Returns int64 [I], the place of an item in the sample, -1 where it is not in it."""
        place = np.full(self.num_items, -1, dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        return place


@dataclass(frozen=True)
class Kept:
    """Pairs that reached their user's floor, ordered by user, then item; rows of users that were given up are left out."""

    rows: IntArray
    """int64 [P]"""
    items: IntArray
    """int64 [P]"""
    values: NDArray[Any]
    """[P] coarse scores."""
    counts: IntArray
    """int64 [B], pairs of each user."""
    floor: NDArray[Any]
    """[B], what a pair had to reach."""
    is_given_up: NDArray[np.bool_]
    """bool [B]"""


def keep(coarse: Coarse, query: Query, k: int, excluded: Exclusions, sample: Sample) -> Kept:
    """Returns the pairs of a block that reach the floor of their user; excluded items never do."""
    num_users = len(query.matrix)
    floor = _floors(coarse, query, excluded, sample)
    cap = max(CAP, 8 * sample.expected)
    closed = np.array(np.inf if coarse.kind.kind == "f" else np.iinfo(coarse.kind).max, coarse.kind)
    counts, is_given_up = np.zeros(num_users, np.int64), np.zeros(num_users, bool)
    reach = floor.copy()
    mask = np.empty(num_users * CHUNK, bool)
    found: list[tuple[Any, Any, Any]] = []
    for start, scores in _chunks(coarse, query, None, sample.num_items, excluded):
        width = scores.shape[1]
        reached = mask[: scores.size].reshape(scores.shape)
        np.greater_equal(scores, reach[:, None], out=reached)
        places = np.flatnonzero(reached)
        rows = places // width
        found.append((rows, places - rows * width + start, scores.ravel()[places]))
        counts += np.bincount(rows, minlength=num_users)
        full = counts > cap
        is_given_up |= full
        reach[full] = closed
    return _joined(found, floor, is_given_up)


def _chunks(
    coarse: Coarse, query: Query, chosen: IntArray | None, num_items: int, excluded: Exclusions
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yields (first place, coarse scores [B, C]) of all or of chosen items, excluded ones lowest. The array is used again."""
    owners = np.repeat(np.arange(len(query.matrix)), excluded.lengths)
    order = np.argsort(excluded.indices, kind="stable")
    owners, barred = owners[order], excluded.indices[order]
    memory = np.empty(len(query.matrix) * CHUNK, coarse.kind)
    for start in range(0, num_items, CHUNK):
        stop = min(start + CHUNK, num_items)
        scores = memory[: len(query.matrix) * (stop - start)].reshape(len(query.matrix), stop - start)
        coarse.multiply(query, slice(start, stop) if chosen is None else chosen[start:stop], scores)
        low, high = np.searchsorted(barred, (start, stop))
        scores[owners[low:high], barred[low:high] - start] = coarse.lowest
        yield start, scores


def _floors(coarse: Coarse, query: Query, excluded: Exclusions, sample: Sample) -> NDArray[Any]:
    """Returns, per user, the sample's score at its rank less the margin; the lowest score there is if all may pass."""
    in_sample = _excluded_places(excluded, sample)
    best = []
    for _, scores in _chunks(coarse, query, sample.rows, len(sample.rows), in_sample):
        group = sample.group if scores.shape[1] % sample.group == 0 else 1
        best.append(scores.reshape(len(scores), group, -1).max(axis=1) if group > 1 else scores.copy())
    maxima = np.concatenate(best, axis=1)
    cut = maxima.shape[1] - sample.rank
    maxima.partition(cut, axis=1)
    # Twice the margin proves a list that has k scores at the level; where the rank has slack, most have more than k.
    level = maxima[:, cut].astype(np.float64) - (2 if sample.is_whole else 1) * query.margin
    if coarse.kind.kind == "f":
        return np.maximum(level, np.finfo(np.float32).min).astype(np.float32)
    return np.maximum(np.floor(level), float(coarse.lowest) + 1).astype(np.int32)


def _excluded_places(excluded: Exclusions, sample: Sample) -> Exclusions:
    if not len(excluded.indices):
        return excluded
    place = sample.place[excluded.indices]
    owners = np.repeat(np.arange(len(excluded.indptr) - 1), excluded.lengths)[place >= 0]
    counts = np.bincount(owners, minlength=len(excluded.indptr) - 1)
    return Exclusions(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), place[place >= 0])


def _joined(found: list[tuple[Any, Any, Any]], floor: Any, is_given_up: NDArray[np.bool_]) -> Kept:
    rows, items, values = (np.concatenate([part[column] for part in found]) for column in range(3))
    found.clear()
    if is_given_up.any():
        open_rows = ~is_given_up[rows]
        rows, items, values = rows[open_rows], items[open_rows], values[open_rows]
    narrow = rows.astype(np.uint16 if len(floor) <= 2**16 else np.int64)
    order = np.argsort(narrow, kind="stable")
    counts = np.bincount(rows, minlength=len(floor))
    return Kept(rows[order], items[order], values[order], counts, floor, is_given_up)


def at_rank(values: NDArray[Any], counts: IntArray, rows: IntArray, k: int, lowest: float) -> NDArray[Any]:
    """Returns, per user, the k-th highest of its values (ordered by user); lowest where it has fewer than k."""
    width = max(int(counts.max(initial=0)), k)
    table = padded(values, counts, rows, width, lowest)
    table.partition(width - k, axis=1)
    result: NDArray[Any] = table[:, width - k].copy()
    return result


def padded(values: NDArray[Any], counts: IntArray, rows: IntArray, width: int, filler: Any) -> NDArray[Any]:
    """Returns [B, width]: each user's values from the left, then the filler."""
    table = np.full((len(counts), width), filler, dtype=values.dtype)
    first = np.cumsum(counts) - counts
    table[rows, np.arange(len(rows)) - first[rows]] = values
    return table
