"""Users cut by how active they were in the window, and the hit rate of each cut.

Belongs here: names and bounds of segments, the table per segment. Does not belong here: the rows per user (`detail.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import SEGMENT
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.bootstrap import interval, resampled_sums
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT
from dssm_assets.core.evaluation.truth import Population
from dssm_assets.core.retrieval.exclusions import Index


def segment_bounds(edges: Sequence[int]) -> list[int]:
    """Returns where segments begin: 0, then 1, then every edge above 1.

    Raises:
        InputError: if edges are not positive, ascending and distinct.
    """
    if any(edge < 1 for edge in edges) or sorted(set(edges)) != list(edges):
        where = "evaluation.segment_edges"
        raise InputError(Fault(where, "positive, ascending, distinct numbers", str(list(edges)), "correct the value"))
    return [0, 1, *(edge for edge in edges if edge > 1)]


def segment_labels(edges: Sequence[int]) -> list[str]:
    """Returns the segments' names in order of activity: edges [10, 30] -> "0", "1-9", "10-29", "30+"."""
    bounds = segment_bounds(edges)
    closed = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(bounds)]
    return [*closed, f"{bounds[-1]}+"]


def segment_of(events: Index, edges: Sequence[int]) -> pa.Array:
    """Returns the segment of each user by its positive events in the window."""
    place = np.searchsorted(np.asarray(segment_bounds(edges)), events, side="right") - 1
    return pa.array(segment_labels(edges), pa.string()).take(pa.array(place))


def segment_table(
    detail: pa.Table, edges: Sequence[int], *, bootstrap_samples: int, seed: int, population: Population = Population.ALL
) -> pa.Table:
    """Returns segment, users, hits, truth_count, hit_rate, ci_low, ci_high; least active first, empty segments left out.

    Args:
        detail: rows per user, as of `hit_rate_detail`.
        edges: the edges that its segments were cut with.
        bootstrap_samples: resamples of the users within a segment.
        seed: of the resamples.
        population: ALL counts everything a user took, so new users (segment "0") have a row; WARM counts known items of
            known users, so the segments add up to the headline number.

    Raises:
        InputError: for COLD, which detail does not hold apart.
    """
    if population is Population.COLD:
        raise InputError(Fault("segment_table, population", "all or warm", "cold", "read the cold number from total_hit_rate"))
    prefix = "warm_" if population is Population.WARM else ""
    rows = []
    for label in segment_labels(edges):
        users = detail.filter(pc.equal(detail.column(SEGMENT), label))
        truth = users.column(prefix + TRUTH_COUNT).to_numpy().astype(np.int64)
        values = np.stack([users.column(prefix + "hits").to_numpy().astype(np.int64), truth], axis=1)[truth > 0]
        if not len(values):
            continue
        sums = resampled_sums(values, bootstrap_samples, seed)
        low, high = interval(sums[:, 0] / sums[:, 1])
        hits, asked = (int(total) for total in values.sum(axis=0))
        rows.append((label, len(values), hits, asked, hits / asked, float(low), float(high)))
    return pa.Table.from_pylist([dict(zip(SEGMENT_SCHEMA.names, row, strict=True)) for row in rows], schema=SEGMENT_SCHEMA)


SEGMENT_SCHEMA = pa.schema(
    [(SEGMENT, pa.string())]
    + [(name, pa.int64()) for name in ("users", "hits", TRUTH_COUNT)]
    + [(name, pa.float64()) for name in ("hit_rate", "ci_low", "ci_high")]
)
