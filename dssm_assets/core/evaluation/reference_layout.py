"""Evaluation results in the column layout of the reference component.

Belongs here: that layout. Does not belong here: our own tables (`specs.py`).

Detail: `id`, `topk_ids`, `topk_dists`, `hitrate`, `bad_ids`, `bad_dists`; the lists are text joined by commas, bad means
recalled but not in the truth. Total: one row, `hitrate`. Distances are what faiss calls them: for l2 the squared distance,
smaller is better; for inner product and cosine the similarity, larger is better. `hitrate` of the total is micro, as in
the reference: the sum of hits over the sum of truth.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT
from dssm_assets.core.evaluation.ids import flat
from dssm_assets.core.evaluation.truth import Mask
from dssm_assets.core.retrieval.exclusions import Index
from dssm_assets.core.retrieval.metrics import Metric

SEPARATOR = ","


def reference_detail(detail: pa.Table, metric: Metric) -> pa.Table:
    """Returns the reference's detail of hit_rate_detail, row by row.

    Args:
        detail: user_id, topk_ids, topk_scores, hit_ids, hitrate; topk_ids without repetitions.
        metric: what the scores are, for the sign of the distances.

    Returns:
        id text, topk_ids text, topk_dists text, hitrate float64, bad_ids text, bad_dists text.

    Raises:
        InputError: if an item id has a comma in it: nobody could tell the lists apart again.
    """
    listed = flat(detail.column("topk_ids"))
    ids = listed.flatten().cast(pa.string())
    commas = ids.filter(pc.match_substring(ids, SEPARATOR))
    if len(commas):
        got = f"{len(commas)} with commas, first {commas[0]}"
        raise InputError(Fault("topk_ids", "item ids without commas", got, "write --detail instead, whose lists are lists"))
    scores = flat(detail.column("topk_scores")).flatten()
    distances = (pc.negate(scores) if metric is Metric.L2 else scores).cast(pa.float32())
    texts = pc.add(distances, pa.scalar(0, pa.float32())).cast(pa.string())  # + 0 turns -0 into 0
    counts = _lengths(listed)
    is_bad = ~_is_hit(detail, ids, counts)
    bad_counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[is_bad], minlength=len(counts))
    bad = pa.array(is_bad)
    return pa.table(
        {
            "id": flat(detail.column(USER_ID)).cast(pa.string()),
            "topk_ids": _joined(ids, counts),
            "topk_dists": _joined(texts, counts),
            "hitrate": flat(detail.column("hitrate")),
            "bad_ids": _joined(ids.filter(bad), bad_counts),
            "bad_dists": _joined(texts.filter(bad), bad_counts),
        }
    )


def reference_total(detail: pa.Table) -> pa.Table:
    """Returns the reference's total of hit_rate_detail: one row, `hitrate`.

    Args:
        detail: hits, truth_count.

    Raises:
        InputError: if there is no truth to divide by.
    """
    truth = pc.sum(detail.column(TRUTH_COUNT)).as_py() or 0
    if not truth:
        raise InputError(Fault("hit_rate_detail", "at least one item to find", "none", "evaluate a day that has truth"))
    return pa.table({"hitrate": pa.array([pc.sum(detail.column("hits")).as_py() / truth], pa.float64())})


def _is_hit(detail: pa.Table, ids: pa.Array, counts: Index) -> Mask:
    """Returns, per entry of topk_ids, whether it is among the row's hit_ids."""
    hits = flat(detail.column("hit_ids"))
    hit_ids = hits.flatten().cast(pa.string())
    codes = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy(zero_copy_only=False)
    hit_codes = pc.fill_null(pc.index_in(hit_ids, value_set=pc.unique(ids)), -1).to_numpy(zero_copy_only=False)
    width = int(codes.max(initial=0)) + 1
    rows, hit_rows = np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(hits)), _lengths(hits))
    known = hit_codes >= 0
    return np.isin(rows * width + codes, hit_rows[known] * width + hit_codes[known])


def _lengths(lists: pa.Array) -> Index:
    lengths: Index = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _joined(texts: pa.Array, counts: Index) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), SEPARATOR)
