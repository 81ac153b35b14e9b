"""Lists of a block of users with the proof that they are right.

Belongs here: scoring proposed candidates by definition, their order, the proof. Does not belong here: proposing them
(`candidates.py`), who is searched how (`exact.py`).

Shapes: B users of a block, P pairs kept, K top-k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.retrieval.candidates import Sample, at_rank, keep, padded
from dssm_assets.core.retrieval.coarse import Coarse
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.metrics import pair_scores
from dssm_assets.core.retrieval.vectors import Vectors

_NO_KEY = np.iinfo(np.uint64).max


def rank_block(
    corpus: Corpus, coarse: Coarse, users: Vectors, k: int, excluded: Exclusions, sample: Sample
) -> tuple[NDArray[np.bool_], IntArray, NDArray[np.float32]]:
    """Returns who has a proof (bool [B]) and the lists; those of users without one mean nothing."""
    query = coarse.query(users)
    kept = keep(coarse, query, k, excluded, sample)
    first = at_rank(kept.values, kept.counts, kept.rows, k, coarse.lowest)
    is_first = kept.values >= first[kept.rows]
    keys = np.full(len(kept.rows), _NO_KEY, dtype=np.uint64)
    rows, items = kept.rows[is_first], kept.items[is_first]
    scores = pair_scores(users, corpus.vectors, rows, items, corpus.metric)
    keys[is_first] = _sort_keys(scores, items)
    # The lowest of k or more scores is reached by k items: what falls below it by more than the margin is out.
    known = _lowest_of(scores, np.bincount(rows, minlength=len(users)), k)
    least = known.astype(np.float64) * query.scale + query.shift - query.margin  # [B], in coarse terms
    is_close = ~is_first & (kept.values >= least[kept.rows])
    rows, items = kept.rows[is_close], kept.items[is_close]
    keys[is_close] = _sort_keys(pair_scores(users, corpus.vectors, rows, items, corpus.metric), items)
    is_used = is_first | is_close
    rows, counts = kept.rows[is_used], np.bincount(kept.rows[is_used], minlength=len(users))
    table = padded(keys[is_used], counts, rows, max(int(counts.max(initial=0)), k), _NO_KEY)
    table.sort(axis=1)
    index, values = _from_keys(table[:, :k])
    return ~kept.is_given_up & _is_proven(kept.floor, least, kept.counts, k, coarse), index, values


def _lowest_of(scores: NDArray[np.float32], counts: IntArray, k: int) -> NDArray[np.float32]:
    """Returns, per user, the lowest of its scores (ordered by user); -inf where it has fewer than k."""
    lowest = np.full(len(counts), -np.inf, dtype=np.float32)
    some = np.flatnonzero(counts)
    if len(some):
        lowest[some] = np.minimum.reduceat(scores, (np.cumsum(counts) - counts)[some])
    lowest[counts < k] = -np.inf
    return lowest


def _is_proven(floor: NDArray[Any], least: NDArray[np.float64], counts: IntArray, k: int, coarse: Coarse) -> NDArray[np.bool_]:
    everything = np.finfo(np.float32).min if coarse.kind.kind == "f" else int(coarse.lowest) + 1
    return (floor <= everything) | ((counts >= k) & (least >= floor))


def _sort_keys(scores: NDArray[np.float32], items: IntArray) -> NDArray[np.uint64]:
    """Returns whole numbers that order pairs by score descending, then by item: one sort instead of two."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0: they are equal and must tie
    falling = np.where(bits >> 31 == 0, ~bits & np.uint32(0x7FFFFFFF), bits)
    return falling.astype(np.uint64) << np.uint64(32) | items.astype(np.uint64)


def _from_keys(keys: NDArray[np.uint64]) -> tuple[IntArray, NDArray[np.float32]]:
    """Returns the items and scores that the keys were made of; -1 and -inf where there is none."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling >> 31 == 0, ~falling & np.uint32(0x7FFFFFFF), falling)
    is_none = keys == _NO_KEY
    index = np.where(is_none, -1, (keys & np.uint64(0xFFFFFFFF)).astype(np.int64))
    return index, np.where(is_none, np.float32(-np.inf), bits.view(np.float32))
