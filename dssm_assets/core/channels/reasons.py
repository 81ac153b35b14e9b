"""Explains why an item is in a merged list: the parts of its log-odds, and the user's items most similar to it.

Shapes: n explained items, E items of the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.channel import Float64Array
from dssm_assets.core.channels.merge import INTERCEPT, Candidates, Merge, Signal, signals_of

CARRIERS: Final = 3
"""An explanation names at most so many of the user's items."""


def split_scores(merge: Merge, found: Candidates, rows: IntArray) -> list[dict[str, float]]:
    """Splits the log-odds of items in one user's merged list: returns, per item, `intercept` or `channel.signal` -> part, without zeros.

    Args:
        found: the user's candidates. Popular items that fill up a list are not among them, because no channel describes them.
        rows: item_index [n].
    """
    column_of = {int(row): column for column, row in enumerate(found.items[0])}
    columns = np.array([column_of.get(int(row), -1) for row in rows], np.int64)
    said = dict(zip(signals_of(found.channels), np.where(columns >= 0, found.signals[:, 0, columns], 0.0), strict=True))
    added = contributions(merge, said)
    return [
        {INTERCEPT: merge.intercept} | {".".join(signal): float(part[n]) for signal, part in added.items() if part[n]}
        for n in range(len(rows))
    ]


def contributions(merge: Merge, said: dict[Signal, Float64Array]) -> dict[Signal, Float64Array]:
    """Returns signal -> its part of the candidates' log-odds. The parts and the intercept sum to `merge.log_odds`.

    A product of two signals counts half for each. This is the signal's Shapley value (Shapley, A value for n-person games,
    1953), compared with an item whose signals are all 0.
    """
    added = {signal: np.zeros(said[signal].shape) for signal in signals_of(merge.channels)}
    for term, weight in merge.weights.items():
        signal, other = term.signal, term.other or term.signal
        value = weight * said[signal] * (1.0 if term.other is None else said[other])
        added[signal] += value / 2
        added[other] += value / 2
    return added


def find_similar_own(neighbors: Any, own_items: IntArray, rows: IntArray) -> list[IntArray]:
    """Returns, for each item [n], at most CARRIERS of the user's items [E], the most similar first.

    Args:
        neighbors: see `SharedData`.
    """
    similar = neighbors[own_items].tocsc()[:, rows]  # [E, n]
    best = (first + np.argsort(-similar.data[first:end], kind="stable")[:CARRIERS] for first, end in pairwise(similar.indptr))
    return [own_items[similar.indices[entries]] for entries in best]


def describe_reasons(parts: dict[str, float], goes_with: Sequence[Any]) -> str:
    """Writes a line of text: each channel's sum of parts (largest first), the intercept, and the user's similar items."""
    sums: dict[str, float] = {}
    for name, value in parts.items():
        channel = name.partition(".")[0]
        sums[channel] = sums.get(channel, 0.0) + value
    added = ", ".join(
        f"{name} {value:+.2f}" for name, value in sorted(sums.items(), key=lambda one: (one[0] == INTERCEPT, -abs(one[1])))
    )
    return f"{added}; goes with {', '.join(map(str, goes_with))}" if len(goes_with) else added
