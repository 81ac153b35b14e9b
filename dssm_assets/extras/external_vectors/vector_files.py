"""Evaluates vectors from files: reads them, evaluates, writes the results."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ids import cast_ids, check_unique, comparable_ids, find_positions
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.item_filter import mask_items, named_columns
from dssm_assets.core.samples.sample_tables import require_columns
from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, VectorEvaluation, evaluate_vectors
from dssm_assets.extras.external_vectors.external_vectors import VECTOR, VectorSet, read_pairs, read_vectors
from dssm_assets.extras.external_vectors.reference_layout import reference_detail, reference_total
from dssm_assets.storage.files import TableWriter, read_parquet


@dataclass(frozen=True)
class VectorFiles:
    """Where input is read from and output is written to: fsspec URLs or paths.

    Attributes:
        user_vectors: user_id, vector.
        item_vectors: item_id, vector.
        truth: user_id, item_id.
        seen: user_id, item_id of what users had seen before, or None.
        items: item_id and the columns that `filters` names, or None.
        filters: conditions on them (`core/retrieval/item_filter.py`). Other items, those that `items` lacks included, are neither
            candidates nor to be found.
        detail: rows per user, or None; .parquet.
        reference_detail: the same in the reference's layout, or None; .parquet or .csv.
        reference_total: the reference's total, or None; .parquet or .csv.
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
    """Returns the evaluation of the vectors in the files, and writes the requested outputs.

    Raises:
        InputError: with the faults of the first file that has any.
    """
    users = read_vectors(
        read_parquet(files.user_vectors, (USER_ID, VECTOR), "user vectors"), USER_ID, "user vectors", allows_multi_interest=True
    )
    items = read_vectors(
        read_parquet(files.item_vectors, (ITEM_ID, VECTOR), "item vectors"),
        ITEM_ID,
        "item vectors",
        allows_multi_interest=False,
    )
    truth, truth_rows = _read_pairs(files.truth, "truth")
    seen = None if files.seen is None else _read_pairs(files.seen, "seen")[0]
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
        sums: list[pa.Table] = []

        def write(rows: pa.Table) -> None:
            if detail is not None:
                detail.write(rows)
            if reference is not None:
                reference.write(reference_detail(rows, settings.metric))
            sums.append(rows.select(["hits", "truth_count"]))

        result = evaluate_vectors(users, items, truth, seen, settings, truth_rows=truth_rows, on_detail=write)
        if total is not None:
            total.write(reference_total(pa.concat_tables(sums)))
    return result


def _find_shown(files: VectorFiles) -> pa.Array | None:
    """Returns the ids of the items that pass the filters; None without filters.

    Raises:
        InputError: only one of filters and items is given, or a condition cannot be used.
    """
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


def _read_pairs(uri: str, where: str) -> tuple[pa.Table, int]:
    table = read_parquet(uri, (USER_ID, ITEM_ID), where)
    return read_pairs(table, where), table.num_rows
