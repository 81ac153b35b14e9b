"""Quality of lists beyond hits: coverage, popularity bias, novelty, and overlap with the previous evaluation day's lists.

Sources: Ge, Delgado-Battenfeld, Jannach, "Beyond accuracy" (RecSys 2010) for coverage; Zhou et al., "Solving the apparent
diversity-accuracy dilemma of recommender systems" (PNAS 2010) for self-information as novelty.

Shapes: I items of the corpus, P list entries of a batch, B users of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import find_positions
from dssm_assets.core.arrays.ragged import IntArray, list_lengths, ranges, repeat_rows
from dssm_assets.core.columns import USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.segments import ItemPopularity

LISTS = "topk_ids"
BLOCK_USERS = 8192
"""Users compared at once."""

QUALITY_SCHEMA = pa.schema(
    [("k", pa.int64()), ("users", pa.int64())]
    + [(name, pa.float64()) for name in ("coverage", "popularity_bias", "novelty", "mean_length")]
)
OVERLAP_SCHEMA = pa.schema([("k", pa.int64()), ("users", pa.int64()), ("kept", pa.float64()), ("jaccard", pa.float64())])


def list_quality(detail: Iterable[pa.RecordBatch], popularity: ItemPopularity, ks: Sequence[int]) -> pa.Table:
    """Returns k, users, coverage, popularity_bias, novelty, mean_length: one row per k.

    Over the first k entries of each list: coverage = distinct items in any list / I; popularity_bias = fraction of the
    entries that are head items (the most popular 1% of the items with events in the window); novelty = mean over the entries
    of -log2 p(item) in bits (`ItemPopularity.self_information`); mean_length = entries / users.

    Who counts: users with a list, whatever their truth. If all lists are empty, the table has no rows.

    By hand: corpus a, b, c, d with 6, 1, 0, 0 events (p = 7/11, 2/11, 1/11, 1/11), so a is the head. Lists [a, b], [a]:
    coverage 2/4, bias 2/3, novelty (2 * 0.652 + 2.459) / 3 = 1.255 bits, length 1.5.

    Args:
        detail: batches with topk_ids, as from `hit_rate_detail`.
        popularity: popularity of the ranked corpus.
        ks: cut-offs, ascending.

    Raises:
        InputError: a list contains an item outside the corpus.
    """
    is_head, surprise = popularity.is_head, popularity.self_information
    is_shown = np.zeros((len(ks), len(popularity.item_ids)), dtype=bool)
    entries, head, bits = (np.zeros(len(ks)) for _ in range(3))
    users = 0
    for batch in detail:
        lists = batch.column(LISTS)
        items = find_positions(lists.flatten(), popularity.item_ids)
        if (items < 0).any():
            where = f"hit_rate_detail, column {LISTS}"
            remedy = "materialize hit_rate_detail again, with the current item_vectors"
            raise InputError(Fault(where, "items of the corpus", f"{int((items < 0).sum())} entries outside it", remedy))
        lengths, position = list_lengths(lists), _list_positions(lists)
        users += int((lengths > 0).sum())
        for at, k in enumerate(ks):
            first = items[position < k]
            is_shown[at, first] = True
            entries[at] += len(first)
            head[at] += is_head[first].sum()
            bits[at] += surprise[first].sum()
    rows = [
        (k, users, is_shown[at].mean(), head[at] / entries[at], bits[at] / entries[at], entries[at] / users)
        for at, k in enumerate(ks)
        if entries[at]
    ]
    return pa.Table.from_pylist([dict(zip(QUALITY_SCHEMA.names, row, strict=True)) for row in rows], QUALITY_SCHEMA)


def list_overlap(detail: Iterable[pa.RecordBatch], before: Iterable[pa.RecordBatch], ks: Sequence[int]) -> pa.Table:
    """Returns k, users, kept, jaccard: one row per k. The table is empty if no user has a list on both days.

    Both lists of a user are cut to the same length n, the smallest of k and the two lengths: kept = items in both / n,
    jaccard = items in both / items in either = both / (2 n - both). The columns are means over users.

    Who counts: users with a list on both days, whatever their truth.

    By hand, k = 3: [a, b, c] and [c, a, x] share 2: kept 2/3, jaccard 2/4.

    Args:
        detail: batches with user_id (ascending) and topk_ids; each list has distinct items.
        before: the same columns of an earlier day, with ids of the same types.
        ks: cut-offs, ascending.
    """
    users, kept, jaccard = (np.zeros(len(ks)) for _ in range(3))
    for now, then in _same_users(detail, before):
        later, row = _common_items(now, then)
        shortest = np.minimum(list_lengths(now), list_lengths(then))
        for at, k in enumerate(ks):
            length = np.minimum(shortest, k)
            both = np.bincount(row[later < length[row]], minlength=len(now))[length > 0]
            length = length[length > 0]
            users[at] += len(length)
            kept[at] += (both / length).sum()
            jaccard[at] += (both / (2 * length - both)).sum()
    rows = [(k, int(users[at]), kept[at] / users[at], jaccard[at] / users[at]) for at, k in enumerate(ks) if users[at]]
    return pa.Table.from_pylist([dict(zip(OVERLAP_SCHEMA.names, row, strict=True)) for row in rows], OVERLAP_SCHEMA)


def _common_items(now: pa.ListArray, then: pa.ListArray) -> tuple[IntArray, IntArray]:
    """Finds the items that are in both lists of a row. Returns the later of each item's two positions, and the row."""
    flat_now, flat_then = now.flatten(), then.flatten()
    values = pc.unique(flat_now)
    width = max(len(values), 1)
    known = find_positions(flat_then, values)
    is_known = known >= 0
    ours = repeat_rows(list_lengths(now)) * width + find_positions(flat_now, values)
    theirs = (repeat_rows(list_lengths(then)) * width + known)[is_known]
    keys, at_now, at_then = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    later = np.maximum(_list_positions(now)[at_now], _list_positions(then)[is_known][at_then])
    return later, keys // width


def _same_users(
    detail: Iterable[pa.RecordBatch], before: Iterable[pa.RecordBatch]
) -> Iterator[tuple[pa.ListArray, pa.ListArray]]:
    """Yields the lists of users in both tables, aligned. Each table is read once, block by block."""
    earlier = iter(before)
    overlapping: list[pa.RecordBatch] = []
    for batch in detail:
        for start in range(0, batch.num_rows, BLOCK_USERS):
            block = batch.slice(start, BLOCK_USERS)
            last: Any = block.column(USER_ID)[-1].as_py()
            overlapping = [one for one in overlapping if one.column(USER_ID)[-1].as_py() >= block.column(USER_ID)[0].as_py()]
            while not overlapping or overlapping[-1].column(USER_ID)[-1].as_py() < last:
                following = next((one for one in earlier if one.num_rows), None)
                if following is None:
                    break
                overlapping.append(following)
            for one in overlapping:
                rows = find_positions(block.column(USER_ID), one.column(USER_ID))
                yield block.column(LISTS).filter(pa.array(rows >= 0)), one.column(LISTS).take(pa.array(rows[rows >= 0]))


def _list_positions(lists: pa.ListArray) -> IntArray:
    """Returns int64 [P], the position of each entry in its own list, from 0."""
    lengths = list_lengths(lists)
    return ranges(np.zeros(len(lengths), np.int64), lengths)
