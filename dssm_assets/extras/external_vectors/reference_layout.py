"""The detail and the total of an evaluation in the layout of the reference implementation (text lists, column `hitrate`)."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import IntArray, Mask, combine_chunks, list_lengths, offsets_of, repeat_rows
from dssm_assets.core.columns import TRUTH_COUNT, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.vectors import Metric

SEPARATOR: Final = ","


def reference_detail(detail: pa.Table, metric: Metric) -> pa.Table:
    """Returns the reference's detail of hit_rate_detail, row by row.

    Args:
        detail: user_id, topk_ids, topk_scores, hit_ids, hit_rate; topk_ids without repetitions.
        metric: what the scores are, for the sign of the distances.

    Returns:
        id text, topk_ids text, topk_dists text, hitrate float64, bad_ids text, bad_dists text.

    Raises:
        InputError: if an item id has a comma in it, which would be read as two ids.
    """
    listed = combine_chunks(detail.column("topk_ids"))
    ids = listed.flatten().cast(pa.string())
    commas = ids.filter(pc.match_substring(ids, SEPARATOR))
    if len(commas):
        got = f"{len(commas)} with commas, first {commas[0]}"
        raise InputError(
            Fault("topk_ids", "item ids without commas", got, "write --detail instead, which stores lists as lists")
        )
    scores = combine_chunks(detail.column("topk_scores")).flatten()
    distances = (pc.negate(scores) if metric is Metric.L2 else scores).cast(pa.float32())
    texts = pc.add(distances, pa.scalar(0, pa.float32())).cast(pa.string())  # + 0 turns -0 into 0
    counts = list_lengths(listed)
    is_bad = ~_is_hit(detail, ids, counts)
    bad_counts = np.bincount(repeat_rows(counts)[is_bad], minlength=len(counts))
    bad = pa.array(is_bad)
    return pa.table(
        {
            "id": combine_chunks(detail.column(USER_ID)).cast(pa.string()),
            "topk_ids": _join_lists(ids, counts),
            "topk_dists": _join_lists(texts, counts),
            "hitrate": combine_chunks(detail.column("hit_rate")),
            "bad_ids": _join_lists(ids.filter(bad), bad_counts),
            "bad_dists": _join_lists(texts.filter(bad), bad_counts),
        }
    )


def reference_total(detail: pa.Table) -> pa.Table:
    """Returns the reference's total of hit_rate_detail: one row, `hitrate`.

    Raises:
        InputError: if there is no truth to divide by.
    """
    truth = pc.sum(detail.column(TRUTH_COUNT)).as_py() or 0
    if not truth:
        raise InputError(Fault("hit_rate_detail", "at least one item to find", "none", "evaluate a day that has truth"))
    return pa.table({"hitrate": pa.array([pc.sum(detail.column("hits")).as_py() / truth], pa.float64())})


def _is_hit(detail: pa.Table, ids: pa.Array, counts: IntArray) -> Mask:
    """Returns, per entry of topk_ids, whether it is among the row's hit_ids."""
    hits = combine_chunks(detail.column("hit_ids"))
    hit_ids = hits.flatten().cast(pa.string())
    codes = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy(zero_copy_only=False)
    hit_codes = pc.fill_null(pc.index_in(hit_ids, value_set=pc.unique(ids)), -1).to_numpy(zero_copy_only=False)
    width = int(codes.max(initial=0)) + 1
    rows, hit_rows = repeat_rows(counts), repeat_rows(list_lengths(hits))
    known = hit_codes >= 0
    return np.isin(rows * width + codes, hit_rows[known] * width + hit_codes[known])


def _join_lists(texts: pa.Array, counts: IntArray) -> pa.Array:
    offsets = pa.array(offsets_of(counts).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), SEPARATOR)
