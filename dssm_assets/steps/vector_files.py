"""Evaluates vectors from files: reads them, evaluates, writes the results.

Does not belong here: definitions (`core/evaluation/external_evaluation.py`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.external_evaluation import ExternalSettings, VectorEvaluation, evaluate_vectors
from dssm_assets.core.evaluation.external_vectors import VECTOR, FaultCollector, VectorSet, read_pairs, read_vectors
from dssm_assets.core.evaluation.reference_layout import reference_detail, reference_total
from dssm_assets.storage.files import TableWriter, read_parquet


@dataclass(frozen=True)
class VectorFiles:
    """Where input is read from and output is written to: fsspec URLs or paths.

    Attributes:
        user_vectors: user_id, vector.
        item_vectors: item_id, vector.
        truth: user_id, item_id.
        seen: user_id, item_id of what users had seen before, or None.
        detail: rows per user, or None; .parquet.
        reference_detail: the same in the reference's layout, or None; .parquet or .csv.
        reference_total: the reference's total, or None; .parquet or .csv.
    """

    user_vectors: str
    item_vectors: str
    truth: str
    seen: str | None = None
    detail: str | None = None
    reference_detail: str | None = None
    reference_total: str | None = None


def evaluate_files(files: VectorFiles, settings: ExternalSettings) -> VectorEvaluation:
    """Returns the evaluation of the vectors in the files, and writes the requested outputs.

    Raises:
        InputError: with the faults of all files at once.
    """
    faults = FaultCollector()
    users = faults.run(lambda: _read_vectors(files.user_vectors, USER_ID, "user vectors", allows_multi_interest=True))
    items = faults.run(lambda: _read_vectors(files.item_vectors, ITEM_ID, "item vectors", allows_multi_interest=False))
    truth = faults.run(lambda: _read_pairs(files.truth, "truth"))
    seen_uri = files.seen
    seen = None if seen_uri is None else faults.run(lambda: _read_pairs(seen_uri, "seen"))
    detail, reference, total = (
        None if uri is None else faults.run(lambda uri=uri, has_lists=has_lists: TableWriter(uri, has_lists=has_lists))  # type: ignore[misc]
        for uri, has_lists in ((files.detail, True), (files.reference_detail, False), (files.reference_total, False))
    )
    if users is None or items is None or truth is None or faults.found:
        raise InputError(faults.found)
    with ExitStack() as stack:
        writers = [stack.enter_context(writer) if writer is not None else None for writer in (detail, reference)]
        sums: list[pa.Table] = []

        def write(rows: pa.Table) -> None:
            if writers[0] is not None:
                writers[0].write(rows)
            if writers[1] is not None:
                writers[1].write(reference_detail(rows, settings.metric))
            sums.append(rows.select(["hits", "truth_count"]))

        result = evaluate_vectors(
            users, items, truth[0], None if seen is None else seen[0], settings, truth_rows=truth[1], on_detail=write
        )
        if total is not None:
            stack.enter_context(total).write(reference_total(pa.concat_tables(sums)))
    return result


def _read_vectors(uri: str, id_column: str, where: str, *, allows_multi_interest: bool) -> VectorSet:
    table = read_parquet(uri, (id_column, VECTOR), where)
    return read_vectors(table, id_column, where, allows_multi_interest=allows_multi_interest)


def _read_pairs(uri: str, where: str) -> tuple[pa.Table, int]:
    table = read_parquet(uri, (USER_ID, ITEM_ID), where)
    return read_pairs(table, where), table.num_rows
