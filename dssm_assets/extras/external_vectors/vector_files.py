"""Evaluates vectors from files and writes the results, also in the layout of the reference (text lists, column `hitrate`)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import cast_ids, check_unique, comparable_ids, find_positions
from dssm_assets.core.arrays.ragged import (
    Offsets,
    build_lists,
    combine_chunks,
    filter_values,
    flatten,
    list_lengths,
    repeat_rows,
)
from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.item_filter import mask_items, named_columns
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.core.samples.sample_tables import require_columns
from dssm_assets.extras.external_vectors.external_evaluation import (
    VECTOR,
    ExternalSettings,
    VectorEvaluation,
    VectorSet,
    evaluate_vectors,
    read_pairs,
    read_vectors,
)
from dssm_assets.storage.files import TableWriter, read_parquet

SEPARATOR: Final = ","
"""Between the ids of a list in the reference's layout."""


@dataclass(frozen=True)
class VectorFiles:
    """Files of an evaluation, at fsspec URLs or paths; the command's help lists their columns.

    Attributes:
        items: item_id and the columns that `filters` names.
        filters: conditions (`core/retrieval/item_filter.py`); other items are neither candidates nor to be found.
        detail: output, .parquet; the reference's outputs may also be .csv.
    """

    user_vectors: str
    item_vectors: str
    truth: str
    seen: str | None = None
    items: str | None = None
    filters: Any = None
    detail: str | None = None
    reference_detail: str | None = None
    reference_total: str | None = None


def evaluate_files(files: VectorFiles, settings: ExternalSettings) -> VectorEvaluation:
    """Returns the evaluation of the vectors in the files, and writes the requested outputs."""
    users, items = (
        read_vectors(read_parquet(uri, (column, VECTOR), where), column, where, allows_multi_interest=column == USER_ID)
        for uri, column, where in (
            (files.user_vectors, USER_ID, "user vectors"),
            (files.item_vectors, ITEM_ID, "item vectors"),
        )
    )
    listed = read_parquet(files.truth, (USER_ID, ITEM_ID), "truth")
    truth, truth_rows = read_pairs(listed, "truth"), listed.num_rows
    seen = None if files.seen is None else read_pairs(read_parquet(files.seen, (USER_ID, ITEM_ID), "seen"), "seen")
    if (shown := _find_shown(files)) is not None:
        kept = truth.filter(pa.array(_is_shown(combine_chunks(truth.column(ITEM_ID)), shown)))
        truth, truth_rows = kept, truth_rows - (truth.num_rows - kept.num_rows)
        rows_shown = np.flatnonzero(_is_shown(items.ids, shown))
        items = VectorSet(items.ids.take(pa.array(rows_shown)), *items.select(rows_shown))
    with ExitStack() as stack:
        detail, reference, total = (
            None if uri is None else stack.enter_context(TableWriter(uri, has_lists=uri == files.detail))
            for uri in (files.detail, files.reference_detail, files.reference_total)
        )

        def write(rows: pa.Table) -> None:
            if detail is not None:
                detail.write(rows)
            if reference is not None:
                reference.write(reference_detail(rows, settings.metric))

        result = evaluate_vectors(users, items, truth, seen, settings, truth_rows=truth_rows, on_detail=write)
        if total is not None:
            total.write(pa.table({"hitrate": result.totals.column("hit_rate")[-1:]}))  # at the largest k
    return result


def _find_shown(files: VectorFiles) -> pa.Array | None:
    """Returns the ids of the items that pass the filters; None without filters."""
    if files.filters is None and files.items is None:
        return None
    if files.filters is None or files.items is None:
        got = "only the conditions" if files.items is None else "only the items"
        raise InputError(Fault("filters", "conditions and a file of items", got, "give both, or neither"))
    table = read_parquet(files.items, (ITEM_ID, *named_columns(files.filters)), "items")
    require_columns("items", table.column_names, (ITEM_ID,))
    ids = combine_chunks(comparable_ids(table.column(ITEM_ID), f"items, column {ITEM_ID}"))
    check_unique(ids, f"items, column {ITEM_ID}")
    shown = ids.filter(pa.array(mask_items(table.drop_columns([ITEM_ID]), files.filters)))
    if not len(shown):
        raise InputError(Fault("filters", "conditions that an item passes", "none of them passes", "correct the conditions"))
    return shown


def _is_shown(ids: pa.Array, shown: pa.Array) -> npt.NDArray[np.bool_]:
    return find_positions(cast_ids(ids, shown.type, f"column {ITEM_ID}, compared with items"), shown) >= 0


def reference_detail(detail: pa.Table, metric: Metric) -> pa.Table:
    """Returns the reference's detail, row by row: id, topk_ids, topk_dists, hitrate, bad_ids, bad_dists; all text but hitrate.

    Args:
        detail: user_id, topk_ids, topk_scores, hit_ids, hit_rate; topk_ids without repetitions.
        metric: of the scores, for the sign of the distances.
    """
    listed, hits = (combine_chunks(detail.column(name)) for name in ("topk_ids", "hit_ids"))
    ids, offsets = flatten(listed.cast(pa.list_(pa.string())))
    commas = ids.filter(pc.match_substring(ids, SEPARATOR))
    if len(commas):
        got, remedy = f"{len(commas)} with commas, first {commas[0]}", "write --detail instead, which stores lists as lists"
        raise InputError(Fault("topk_ids", "item ids without commas", got, remedy))
    scores = combine_chunks(detail.column("topk_scores")).flatten()
    distances = (pc.negate(scores) if metric is Metric.L2 else scores).cast(pa.float32())
    texts = pc.add(distances, pa.scalar(0, pa.float32())).cast(pa.string())  # + 0 turns -0 into 0
    is_bad = pc.invert(pc.is_in(_row_keys(listed), value_set=_row_keys(hits))).to_numpy(zero_copy_only=False)

    def join(values: pa.Array, offsets: Offsets) -> pa.Array:
        return pc.binary_join(build_lists(values, offsets), SEPARATOR)

    return pa.table(
        {
            "id": combine_chunks(detail.column(USER_ID)).cast(pa.string()),
            "topk_ids": join(ids, offsets),
            "topk_dists": join(texts, offsets),
            "hitrate": combine_chunks(detail.column("hit_rate")),
            "bad_ids": join(*filter_values(ids, offsets, is_bad)),
            "bad_dists": join(*filter_values(texts, offsets, is_bad)),
        }
    )


def _row_keys(lists: pa.Array) -> pa.Array:
    """Returns a text per entry that no entry of another row has."""
    rows = pa.array(repeat_rows(list_lengths(lists))).cast(pa.string())
    return pc.binary_join_element_wise(rows, lists.flatten().cast(pa.string()), SEPARATOR)
