"""Vectors: both towers over the encoded features of the eve, in parts, so that never all of them are held.

Every part is checked on its way into the partition. Vectors that are not fit to be searched never take the place of
what stood before; the blocking check says so and stops what is behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.stored_vectors import stored_items, stored_users, window_priors
from dssm_assets.steps.vector_drift import NAME as VECTOR_DRIFT
from dssm_assets.steps.vector_drift import vector_drift
from dssm_assets.steps.workspace import Check, StepResult, Workspace, check_made_from, day_before, digests, start_of_day_ms
from dssm_assets.storage.engine import Bindable
from dssm_assets.storage.manifest import Manifest

BATCH_ROWS = 4096
Part = tuple[pa.Array, npt.NDArray[np.float32]]
"""Ids and their vectors, row by row."""


def item_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the item tower over the corpus."""
    for ds in days:
        yield _item_vectors(workspace, ds)


def _item_vectors(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.specs import ITEM_VECTORS
    from dssm_assets.core.training.inference import ItemInference

    model, towers = _towers(workspace, ds)
    corpus, stored = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
    items = workspace.artifacts.map_table(stored, "items.arrow")
    inference = ItemInference(towers, BATCH_ROWS)
    priors = window_priors(workspace, model, stored, items.num_rows) if towers.spec.prior else None

    def parts() -> Iterator[Part]:
        begin = 0
        for batch in workspace.tables.batches(corpus, [col.ITEM_ID]):
            part = slice(begin, begin + batch.num_rows)
            yield batch.column(0), stored_items(inference.vectors(items[part]), None if priors is None else priors[part])
            begin += batch.num_rows

    width = towers.spec.item_vector_width
    vectors = _Vectors(ITEM_VECTORS, ds, _id_type(workspace, corpus, col.ITEM_ID), width, corpus.rows)
    return _written(workspace, vectors, parts(), [model, corpus, stored])


def user_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the user tower over all users, with their history up to the end of the day before."""
    for ds in days:
        yield _user_vectors(workspace, ds)


def _user_vectors(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.specs import USER_VECTORS
    from dssm_assets.core.training.inference import UserInference

    model, towers = _towers(workspace, ds)
    stored, features = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
    bucketizer, config_inputs = open_bucketizer(workspace, ds)
    indexed = indexed_features(bucketizer, "user")
    histories = workspace.artifacts.map_table(stored, "users.arrow")
    history = workspace.artifacts.map_table(stored, "history.arrow")
    as_of_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
    inference = UserInference(towers, history, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
    known = IdIndex(histories.column(col.USER_ID))
    facts = {"users_without_history": 0}

    def parts() -> Iterator[Part]:
        for batch in workspace.tables.batches(features, [col.USER_ID, *indexed.columns]):
            encoded = pa.Table.from_batches([batch])
            rows = known.lookup(batch.column(0))
            facts["users_without_history"] += int((rows < 0).sum())
            starts, ends = (_bounds(histories, name, rows) for name in ("history_start", "history_end"))
            indices = pa.table(indexed.of(encoded, "table user_features_fg"))
            yield batch.column(0), stored_users(inference.vectors(indices, starts, ends), towers.spec)

    width = towers.spec.user_vector_width
    vectors = _Vectors(USER_VECTORS, ds, _id_type(workspace, features, col.USER_ID), width, features.rows)
    return _written(workspace, vectors, parts(), [model, stored, features, *config_inputs], facts)


@dataclass(frozen=True)
class _Vectors:
    """A partition of vectors that is to be written: its contract, its day and what it must hold."""

    spec: TableSpec
    ds: str
    id_type: pa.DataType
    dims: int
    row_count: int

    @property
    def schema(self) -> pa.Schema:
        """Returns the schema of the table."""
        key, vector = (column.name for column in self.spec.columns)
        return pa.schema([(key, self.id_type), (vector, pa.list_(pa.float32(), self.dims))])


class _UnfitError(Exception):
    """The vectors are not to take the place of what stands."""


def _written(
    workspace: Workspace,
    vectors: _Vectors,
    parts: Iterable[Part],
    made_from: Sequence[Bindable],
    facts: Mapping[str, Any] | None = None,
) -> StepResult:
    """Writes the parts as they come, then reports on their structure and on their drift."""
    from dssm_assets.core.retrieval.structure import VectorStructure

    structure = VectorStructure(width=vectors.dims, expected_row_count=vectors.row_count)
    standing = workspace.find(vectors.spec.name, vectors.ds)

    def checked() -> Iterator[pa.RecordBatch]:
        for ids, matrix in parts:
            batch = pa.RecordBatch.from_arrays([ids, _fixed_lists(matrix)], schema=vectors.schema)
            structure.take(batch.column(0), batch.column(1))
            yield batch
        if standing is not None and not structure.report().passed:
            raise _UnfitError

    begun = workspace.now()
    try:
        manifest = workspace.tables.write(vectors.spec, vectors.ds, checked(), schema=vectors.schema, inputs=digests(made_from))
    except _UnfitError:
        if standing is None:
            raise
        manifest = standing
    seconds = workspace.now() - begun
    report = structure.report()
    drift_facts: Mapping[str, Any] = {}
    drift_check = Check(VECTOR_DRIFT, False, "not compared: the vectors lack their structure")
    if report.passed:
        drift_check, drift_facts = vector_drift(workspace, vectors.spec, manifest)
    figures = {
        "dims": vectors.dims,
        "inference_seconds": round(seconds, 3),
        "inference_rows_per_s": round(report.row_count / max(seconds, 1e-9), 1),
        **(facts or {}),
        **drift_facts,
    }
    return StepResult(manifest, figures, (Check("structure", report.passed, report.sentence, report.facts()), drift_check))


def _towers(workspace: Workspace, ds: str) -> tuple[Manifest, Any]:
    from dssm_assets.core.training.checkpoint import model_from_bytes

    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_made_from(manifest, settings.manifest, samples)
    check_made_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, model_from_bytes(workspace.artifacts.read_bytes(manifest, "model.bin"), settings.spec)


def _id_type(workspace: Workspace, manifest: Manifest, column: str) -> pa.DataType:
    return workspace.tables.open(manifest).schema.field(column).type


def _bounds(histories: pa.Table, name: str, rows: Any) -> npt.NDArray[np.int64]:
    bounds = histories.column(name).to_numpy()
    found = np.zeros(len(rows), np.int64)
    found[rows >= 0] = bounds[rows[rows >= 0]]
    return found


def _fixed_lists(vectors: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])
