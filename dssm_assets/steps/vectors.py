"""Vectors: both towers over the encoded features of the eve.

The model's tables, the histories and where each user's lie are memory maps: what is read of them stays in the system's
cache, which all processes share (`evaluation.num_processes`).

Belongs here: what each tower reads. Does not belong here: writing (`vector_parts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, SortedIds
from dssm_assets.core.file_names import ModelFile, TrainSamplesFile
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.parallel import run_parallel
from dssm_assets.steps.workspace import (
    Check,
    StepResult,
    Workspace,
    check_built_from,
    day_before,
    days_between,
    digests,
    partitions_before,
    start_of_day_ms,
)
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import ROW_GROUP_ROWS

if TYPE_CHECKING:
    from dssm_assets.core.retrieval.structure import VectorStructure


NAME = "vector_drift"
_BATCH_ROWS = 4096


def measure_drift(workspace: Workspace, spec: TableSpec, manifest: Manifest) -> tuple[Check, Mapping[str, Any]]:
    """Returns the check and the figures of the drift; no figures where there is no partition before.

    Args:
        workspace: holds both partitions.
        spec: contract of the table: its id and its vectors.
        manifest: the partition.
    """
    from dssm_assets.core.retrieval.drift import DriftReport, common_ids, drift

    before = partitions_before(workspace, spec.name, manifest.ds, 1)
    if not before:
        return Check(NAME, True, f"no partition before {manifest.ds} to compare with"), {}
    gate, seed = workspace.config.gate, workspace.config.seed
    key = spec.key[0]
    ids = [workspace.tables.read(part, [key]).column(key) for part in (manifest, before[0])]
    common = common_ids(ids[0], ids[1], limit=gate.drift_ids, seed=seed)
    now, then = (_vectors(workspace, spec, part, common.ids) for part in (manifest, before[0]))
    report = DriftReport(before[0].ds, common, drift(now, then, seed=seed), now.shape[1], gate.min_vector_cosine)
    facts = report.facts()
    return Check(NAME, report.passed, report.sentence, facts), facts


def _vectors(workspace: Workspace, spec: TableSpec, manifest: Manifest, wanted: pa.Array) -> npt.NDArray[np.float32]:
    """Returns the vectors of the wanted ids, in their order, reading batch by batch."""
    from dssm_assets.core.arrays.ids import IdIndex
    from dssm_assets.core.retrieval.vectors import matrix_of

    key, column = spec.key[0], spec.columns[1].name
    width = workspace.tables.open(manifest).schema.field(column).type.list_size
    index = IdIndex(wanted)
    found = np.zeros((len(wanted), width), np.float32)
    if not len(wanted):
        return found
    for batch in workspace.tables.batches(manifest, [key, column], batch_rows=_BATCH_ROWS):
        rows = index.lookup(batch.column(0))
        matrix = matrix_of(batch.column(1), f"{manifest.key}, column {column}")
        found[rows[rows >= 0]] = matrix[rows >= 0]
    return found


PART_ROWS = ROW_GROUP_ROWS
"""Rows of a file: cut the same way however many processes there are, so that their number changes no byte."""
Part = tuple[pa.Array, npt.NDArray[np.float32]]
"""Ids and their vectors, row by row."""


@dataclass(frozen=True)
class VectorPartition:
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


class TowerRows(Protocol):
    """One tower over its table, any range of rows at a time."""

    vectors: VectorPartition
    built_from: tuple[Manifest, ...]

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[Part]:
        """Yields rows first .. end - 1 of the table in their order; what is worth counting is added to the facts."""


@dataclass(frozen=True)
class _Task:
    """A file of vectors: rows first .. end - 1, and where it is written."""

    first: int
    end: int
    path: Path


@dataclass(frozen=True)
class _Done:
    """A file of vectors that has been written, what was seen of its structure and what was counted."""

    row_count: int
    structure: VectorStructure
    facts: dict[str, int]


class _Writer:
    """Writes files of vectors."""

    def __init__(self, rows: TowerRows, workspace: Workspace) -> None:
        self._tables, self._rows = workspace.tables, rows
        self.inputs = digests(rows.built_from)

    @classmethod
    def of(cls, kind: Callable[[Workspace, str], TowerRows], ds: str, workspace: Workspace) -> _Writer:
        """Returns the writer of a day."""
        return cls(kind(workspace, ds), workspace)

    def process(self, task: _Task) -> _Done:
        """Writes a file."""
        from dssm_assets.core.retrieval.structure import VectorStructure

        vectors = self._rows.vectors
        structure = VectorStructure(width=vectors.dims, expected_row_count=task.end - task.first)
        facts: dict[str, int] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for ids, matrix in self._rows.parts(task.first, task.end, facts):
                batch = pa.RecordBatch.from_arrays([ids, _fixed_lists(matrix)], schema=vectors.schema)
                structure.take(batch.column(0), batch.column(1))
                yield batch

        row_count = self._tables.write_part(task.path, vectors.spec, batches(), vectors.schema)
        return _Done(row_count, structure, facts)


def write_vectors(workspace: Workspace, kind: Callable[[Workspace, str], TowerRows], ds: str) -> StepResult:
    """Writes the vectors part by part, then reports on their structure and on their drift."""
    from dssm_assets.core.retrieval.structure import VectorStructure

    rows = kind(workspace, ds)
    begun = workspace.now()
    vectors, inputs = rows.vectors, digests(rows.built_from)
    structure = VectorStructure(width=vectors.dims, expected_row_count=vectors.row_count)
    facts: dict[str, int] = {}
    processes = workspace.config.evaluation.num_processes
    with workspace.tables.partitions.staging() as folder:
        cuts = range(0, max(vectors.row_count, 1), PART_ROWS)
        ends = (min(first + PART_ROWS, vectors.row_count) for first in cuts)
        tasks = [_Task(first, end, folder / part_name(k)) for k, (first, end) in enumerate(zip(cuts, ends, strict=True))]
        # With one process the tables that are open here are read.
        build = partial(_Writer, rows) if processes == 1 or len(tasks) == 1 else partial(_Writer.of, kind, ds)
        staged = []
        for task, done in zip(tasks, run_parallel(workspace, build, tasks, inputs), strict=True):
            staged.append((task.path, done.row_count))
            structure.add(done.structure)
            facts |= {name: facts.get(name, 0) + count for name, count in done.facts.items()}
        report, standing = structure.report(), workspace.find(vectors.spec.name, ds)
        if standing is None or report.passed:
            manifest = workspace.tables.publish_parts(vectors.spec, ds, staged, schema=vectors.schema, inputs=inputs)
        else:
            manifest = standing  # what is not fit to be searched does not take its place
    return _reported(workspace, vectors, manifest, report, seconds=workspace.now() - begun, facts=facts)


def _reported(
    workspace: Workspace, vectors: VectorPartition, manifest: Manifest, report: Any, *, seconds: float, facts: Mapping[str, Any]
) -> StepResult:
    drift_facts: Mapping[str, Any] = {}
    drift_check = Check(NAME, False, "not compared: the vectors lack their structure")
    if report.passed:
        drift_check, drift_facts = measure_drift(workspace, vectors.spec, manifest)
    figures = {
        "dims": vectors.dims,
        "inference_seconds": round(seconds, 3),
        "inference_rows_per_s": round(report.row_count / max(seconds, 1e-9), 1),
        **facts,
        **drift_facts,
    }
    return StepResult(manifest, figures, (Check("structure", report.passed, report.sentence, report.facts()), drift_check))


def _fixed_lists(vectors: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])


VectorArray = npt.NDArray[np.float32]


def pack_item_vectors(vectors: VectorArray, priors: VectorArray | None) -> VectorArray:
    """Returns item vectors as they are stored [I, D], or [I, D + 1] with the items' priors [I]."""
    from dssm_assets.core.models.prior import with_prior

    return vectors if priors is None else with_prior(vectors, priors)


def pack_user_vectors(vectors: VectorArray, spec: Any) -> VectorArray:
    """Returns user vectors [U, D] or [U, K, D] as they are stored, one row of `spec.user_vector_width` each."""
    from dssm_assets.core.models.prior import with_one

    widened = with_one(vectors) if spec.prior else vectors
    return widened.reshape(len(widened), spec.user_vector_width)


def read_window_priors(workspace: Workspace, model: Manifest, samples: Manifest, item_count: int) -> VectorArray:
    """Returns the priors [I] of the corpus by the positive samples that the model was trained on."""
    table = workspace.artifacts.map_table(samples, TrainSamplesFile.SAMPLES).select(["item_index", "day"])
    items, days = (table.column(name).to_numpy() for name in table.column_names)
    return _priors(workspace, model, items, workspace.config.window.days - days, item_count)


def read_recent_priors(
    workspace: Workspace, model: Manifest, recent: Sequence[Manifest], after: str, items: IdIndex
) -> VectorArray:
    """Returns the priors [I] of items by positive samples of days, read one after the other.

    Args:
        workspace: holds the model and the days.
        model: holds the prior.
        recent: positive_sample of days before `after`.
        after: the day that is scored, in the text of a partition.
        items: any items; samples of others are left out.
    """
    rows, ages = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for day in recent:
        found = items.lookup(workspace.tables.read(day, [col.ITEM_ID]).column(0), where=f"table {day.key}, column item_id")
        rows.append(found[found >= 0].astype(np.int64))
        ages.append(np.full(len(rows[-1]), len(days_between(day.ds, after)) - 1))
    return _priors(workspace, model, np.concatenate(rows), np.concatenate(ages), len(items))


def _priors(workspace: Workspace, model: Manifest, items: Any, age_days: Any, item_count: int) -> VectorArray:
    from dssm_assets.core.models.prior import Prior, recent_counts

    prior = Prior.from_json(workspace.artifacts.read_bytes(model, ModelFile.PRIOR))
    recent = recent_counts(items, age_days, prior.half_life_days, item_count)
    return prior.prior_of(np.bincount(items, minlength=item_count).astype(np.float64), recent)


BATCH_ROWS = 4096


def item_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the item tower over the corpus."""
    for ds in days:
        yield write_vectors(workspace, ItemRows, ds)


def user_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the user tower over all users, with their history up to the end of the day before."""
    for ds in days:
        yield write_vectors(workspace, UserRows, ds)


class ItemRows:
    """The item tower over the corpus."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens model and tables of a day."""
        from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS
        from dssm_assets.core.training.inference import ItemInference

        model, towers = _towers(workspace, ds)
        self._workspace = workspace
        self._corpus, stored = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
        self._items = workspace.artifacts.map_table(stored, TrainSamplesFile.ITEMS)
        self._inference = ItemInference(towers, BATCH_ROWS)
        self._priors = read_window_priors(workspace, model, stored, self._items.num_rows) if towers.spec.prior else None
        width, kind = towers.spec.item_vector_width, _id_type(workspace, self._corpus, col.ITEM_ID)
        self.vectors = VectorPartition(ITEM_VECTORS, ds, kind, width, self._corpus.rows)
        self.built_from: tuple[Manifest, ...] = (model, self._corpus, stored)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[Part]:
        """Yields rows of the corpus."""
        for batch in self._workspace.tables.rows(self._corpus, [col.ITEM_ID], first, end):
            part = slice(first, first + batch.num_rows)
            priors = None if self._priors is None else self._priors[part]
            yield batch.column(0), pack_item_vectors(self._inference.vectors(self._items[part]), priors)
            first += batch.num_rows


class UserRows:
    """The user tower over the users of the eve."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens model and tables of a day."""
        from dssm_assets.core.evaluation.evaluation_tables import USER_VECTORS
        from dssm_assets.core.training.inference import UserInference

        model, towers = _towers(workspace, ds)
        self._workspace, self._spec = workspace, towers.spec
        stored, self._features = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
        bucketizer, config_inputs = open_bucketizer(workspace, ds)
        self._indexed = indexed_features(bucketizer, "user")
        self._histories = workspace.artifacts.map_table(stored, TrainSamplesFile.USERS)
        history = workspace.artifacts.map_table(stored, TrainSamplesFile.HISTORY)
        as_of_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
        self._inference = UserInference(towers, history, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._known = SortedIds(self._histories.column(col.USER_ID), where="train_samples, users.arrow")
        width, kind = self._spec.user_vector_width, _id_type(workspace, self._features, col.USER_ID)
        self.vectors = VectorPartition(USER_VECTORS, ds, kind, width, self._features.rows)
        self.built_from: tuple[Manifest, ...] = (model, stored, self._features, *config_inputs)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[Part]:
        """Yields users; counts those without history."""
        for batch in self._workspace.tables.rows(self._features, [col.USER_ID, *self._indexed.columns], first, end):
            rows = self._known.lookup(batch.column(0))
            facts["users_without_history"] = facts.get("users_without_history", 0) + int((rows < 0).sum())
            starts, ends = (_bounds(self._histories, name, rows) for name in ("history_start", "history_end"))
            indices = pa.table(self._indexed.to_indices(pa.Table.from_batches([batch]), "table user_features_fg"))
            yield batch.column(0), pack_user_vectors(self._inference.vectors(indices, starts, ends), self._spec)


def _towers(workspace: Workspace, ds: str) -> tuple[Manifest, Any]:
    from dssm_assets.steps.fit_job import map_model

    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_built_from(manifest, settings.manifest, samples)
    check_built_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, map_model(workspace.artifacts.local_path(manifest, ModelFile.WEIGHTS), settings.spec)


def _id_type(workspace: Workspace, manifest: Manifest, column: str) -> pa.DataType:
    return workspace.tables.open(manifest).schema.field(column).type


def _bounds(histories: pa.Table, name: str, rows: Any) -> npt.NDArray[np.int64]:
    column = histories.column(name)
    bounds = column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()  # of one chunk nothing is copied
    found = np.zeros(len(rows), np.int64)
    found[rows >= 0] = bounds[rows[rows >= 0]]
    return found
