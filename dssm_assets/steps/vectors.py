"""Steps of the vectors: run the item tower over the corpus, and the user tower over all users of the previous day.

The model's tables and the histories are memory maps, so all processes of `evaluation.num_processes` share the memory.
Vectors are checked as they are written: structure, and drift against the day before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS, USER_VECTORS
from dssm_assets.core.file_names import ModelFile, TrainSamplesFile
from dssm_assets.core.models.group_codes import GroupCodes
from dssm_assets.core.models.prior import Prior, ages_in_days, append_prior, decayed_counts, weekly_growth
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.drift import compute_drift, find_common_ids, judge_drift
from dssm_assets.core.retrieval.structure import VectorStructure
from dssm_assets.core.retrieval.vectors import to_lists, to_matrix
from dssm_assets.core.samples.sample_tables import HISTORY_END, HISTORY_START
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.steps.feature_config import RunSettings, indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.parallel import run_parallel
from dssm_assets.steps.workspace import (
    Check,
    StepResult,
    Workspace,
    check_built_from,
    day_before,
    digests,
    each_day,
    partitions_before,
    start_of_day_ms,
)
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import ROW_GROUP_ROWS

BATCH_ROWS = 4096
"""A tower, or the comparison with the day before, reads so many rows at a time."""
PART_ROWS = ROW_GROUP_ROWS
"""A file has so many rows, whatever the number of processes, so the number changes no byte."""

DRIFT_IDS: Final = 10_000
"""Drift is measured on at most so many common ids. If there are more, a sample is drawn."""
VectorArray = npt.NDArray[np.float32]
VectorPart = tuple[pa.Array, VectorArray]
"""Ids and their vectors, row by row."""


@each_day
def item_vectors(workspace: Workspace, ds: str) -> StepResult:
    return write_vectors(workspace, ItemVectors, ds)


@each_day
def user_vectors(workspace: Workspace, ds: str) -> StepResult:
    return write_vectors(workspace, UserVectors, ds)


class VectorSource(ABC):
    """Computes the vectors of one tower for any range of rows of its table. It is a worker of `run_parallel`.

    Attributes:
        spec: contract of the vectors' table.
        table: the table of users or items: each row gets a vector.
        dims: width of a vector.
        inputs: "asset/ds" -> digest of every partition that is read.
    """

    spec: ClassVar[TableSpec]
    table: Manifest
    dims: int
    inputs: dict[str, str]

    def __init__(self, workspace: Workspace, ds: str) -> None:
        self._workspace = workspace

    @cached_property
    def schema(self) -> pa.Schema:
        key, vector = (column.name for column in self.spec.columns)
        kind = self._workspace.tables.open(self.table).schema.field(key).type
        return pa.schema([(key, kind), (vector, pa.list_(pa.float32(), self.dims))])

    def new_structure(self, row_count: int) -> VectorStructure:
        return VectorStructure(width=self.dims, expected_row_count=row_count, is_of_users=self.spec.key == (col.USER_ID,))

    @abstractmethod
    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields ids and vectors of the rows `first` to `end - 1`. Adds counts to `facts`."""

    def process(self, task: tuple[int, int, Path]) -> tuple[int, VectorStructure, dict[str, int]]:
        """Writes the vectors of a range of rows to a file.

        Args:
            task: first row, end (excluded), path of the file.

        Returns:
            Number of rows, structure of the vectors, facts.
        """
        first, end, path = task
        facts, structure = dict[str, int](), self.new_structure(end - first)

        def batches() -> Iterator[pa.RecordBatch]:
            for ids, matrix in self.parts(first, end, facts):
                batch = pa.RecordBatch.from_arrays([ids, to_lists(matrix)], schema=self.schema)
                structure.check_rows(batch.column(0), batch.column(1))
                yield batch

        return self._workspace.tables.write_part(path, self.spec, batches(), self.schema), structure, facts


def write_vectors(workspace: Workspace, kind: type[VectorSource], ds: str) -> StepResult:
    """Writes the vectors of a day, and checks their structure and their drift since the day before.

    Vectors with a broken structure never replace an existing partition.
    """
    source = kind(workspace, ds)
    row_count, facts = source.table.rows, dict[str, int]()
    structure = source.new_structure(row_count)
    with workspace.tables.partitions.staging() as folder:
        starts = range(0, max(row_count, 1), PART_ROWS)  # an empty table has one file as well
        tasks = [(k, min(k + PART_ROWS, row_count), folder / part_name(number)) for number, k in enumerate(starts)]
        is_single = workspace.config.evaluation.num_processes == 1 or len(tasks) == 1
        # A single process uses the source that is open already.
        build: Callable[[Workspace], Any] = partial(kind, ds=ds)
        written = map(source.process, tasks) if is_single else run_parallel(workspace, build, tasks, source.inputs)
        staged = []
        for task, (written_rows, checked, counts) in zip(tasks, written, strict=True):
            staged.append((task[2], written_rows))
            structure.append(checked)
            facts |= {name: facts.get(name, 0) + count for name, count in counts.items()}
        (is_sound, sentence), manifest = structure.report(), workspace.find(kind.spec.name, ds)
        if manifest is None or is_sound:
            manifest = workspace.tables.publish_parts(kind.spec, ds, staged, schema=source.schema, inputs=source.inputs)
    drift = Check("vector_drift", False, "not compared: the structure of the vectors is broken")
    if is_sound:
        drift = measure_drift(workspace, kind.spec, manifest)
    structure_check = Check("structure", is_sound, sentence)
    return StepResult(manifest, {"dims": source.dims, **facts, **drift.facts}, (structure_check, drift))


def measure_drift(workspace: Workspace, spec: TableSpec, manifest: Manifest) -> Check:
    before = partitions_before(workspace, spec.name, manifest.ds, 1)
    if not before:
        return Check("vector_drift", True, f"no partition before {manifest.ds} to compare with")
    seed = workspace.config.seed
    ids = [workspace.tables.read(part, [spec.key[0]]).column(0) for part in (manifest, before[0])]
    common, common_count = find_common_ids(ids[0], ids[1], limit=DRIFT_IDS, seed=seed)
    now, then = (_read_vectors(workspace, spec, part, common) for part in (manifest, before[0]))
    drift = compute_drift(now, then, seed=seed)
    counts = {"common_count": common_count, "before_count": len(ids[1]), "width": now.shape[1]}
    return Check("vector_drift", *judge_drift(drift, day=before[0].ds, **counts))


def _read_vectors(workspace: Workspace, spec: TableSpec, manifest: Manifest, ids: pa.Array) -> VectorArray:
    """Returns the vectors of some ids, in the order of the ids. One batch is in memory at a time."""
    key, column = spec.key[0], spec.columns[1].name
    width = workspace.tables.open(manifest).schema.field(column).type.list_size
    index = IdIndex(ids)
    found = np.zeros((len(ids), width), np.float32)
    if not len(ids):
        return found
    for batch in workspace.tables.batches(manifest, [key, column], batch_rows=BATCH_ROWS):
        rows = index.lookup(batch.column(0))
        matrix = to_matrix(batch.column(1), f"{manifest.key}, column {column}")
        found[rows[rows >= 0]] = matrix[rows >= 0]
    return found


class ItemVectors(VectorSource):
    spec = ITEM_VECTORS

    def __init__(self, workspace: Workspace, ds: str) -> None:
        super().__init__(workspace, ds)
        model, towers = open_towers(workspace, ds)
        self.table, samples = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
        self._items = workspace.artifacts.map_table(samples, TrainSamplesFile.ITEMS)
        self._inference = open_item_inference(workspace, model, towers)
        self._priors = read_window_priors(workspace, model, samples, self._items.num_rows) if towers.spec.prior else None
        self.dims = towers.spec.item_vector_width
        self.inputs = digests([model, self.table, samples])

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the vectors of a range of the corpus."""
        for batch in self._workspace.tables.rows(self.table, [col.ITEM_ID], first, end):
            part = slice(first, first + batch.num_rows)
            vectors = self._inference.vectors(self._items[part])
            yield batch.column(0), vectors if self._priors is None else append_prior(vectors, self._priors[part])
            first += batch.num_rows


class UserVectors(VectorSource):
    spec = USER_VECTORS

    def __init__(self, workspace: Workspace, ds: str) -> None:
        super().__init__(workspace, ds)
        model, towers = open_towers(workspace, ds)
        samples, self.table = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
        bucketizer, config_inputs = open_bucketizer(workspace, ds)
        self._indexed = indexed_features(bucketizer, "user")
        users = workspace.artifacts.map_table(samples, TrainSamplesFile.USERS)
        history = workspace.artifacts.map_table(samples, TrainSamplesFile.HISTORY)
        as_of_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
        self._inference = UserInference(towers, history, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._known = IdIndex(users.column(col.USER_ID), where="train_samples, users.arrow")
        self._bounds = [users.column(name).to_numpy() for name in (HISTORY_START, HISTORY_END)]
        self.dims = towers.spec.user_vector_width
        self.inputs = digests([model, samples, self.table, *config_inputs])

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the vectors of a range of user_features_fg. The fact `users_without_history` counts users without a history."""
        for batch in self._workspace.tables.rows(self.table, [col.USER_ID, *self._indexed.columns], first, end):
            rows = self._known.lookup(batch.column(0), where="table user_features_fg, column user_id")
            facts["users_without_history"] = facts.get("users_without_history", 0) + int((rows < 0).sum())
            starts, ends = (np.where(rows >= 0, bounds[rows] if len(bounds) else 0, 0) for bounds in self._bounds)
            indices = self._indexed.to_table(batch, "table user_features_fg")
            yield batch.column(0), self._inference.vectors(indices, starts, ends)


def open_item_inference(workspace: Workspace, model: Manifest, towers: TwoTower) -> ItemInference:
    """Returns the item tower of a model, with its codes for items without events if the model has any."""
    has_codes = any(file.name == ModelFile.GROUP_CODES for file in model.files)
    codes = GroupCodes.from_bytes(workspace.artifacts.read_bytes(model, ModelFile.GROUP_CODES)) if has_codes else None
    return ItemInference(towers, BATCH_ROWS, codes)


def read_window_priors(workspace: Workspace, model: Manifest, samples: Manifest, item_count: int) -> VectorArray:
    """Returns the priors of the corpus [I], from the positive samples of the model's training."""
    table = workspace.artifacts.map_table(samples, TrainSamplesFile.SAMPLES).select(["item_index", col.EVENT_TIME_MS])
    items, times = (table.column(name).to_numpy() for name in table.column_names)
    return _compute_priors(workspace, model, items, times, item_count)


def read_recent_priors(workspace: Workspace, model: Manifest, recent: Sequence[Manifest], items: IdIndex) -> VectorArray:
    """Returns the priors of `items` [I], from positive_sample of some days. One day is in memory at a time."""
    rows, times = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for day in recent:
        table = workspace.tables.read(day, [col.ITEM_ID, col.EVENT_TIME_MS])
        found = items.lookup(table.column(col.ITEM_ID), where=f"table {day.key}, column item_id")
        rows.append(found[found >= 0].astype(np.int64))
        times.append(table.column(col.EVENT_TIME_MS).to_numpy()[found >= 0])
    return _compute_priors(workspace, model, np.concatenate(rows), np.concatenate(times), len(items))


def _compute_priors(workspace: Workspace, model: Manifest, items: Any, times_ms: Any, item_count: int) -> VectorArray:
    prior = Prior.model_validate_json(workspace.artifacts.read_bytes(model, ModelFile.PRIOR))
    ages = ages_in_days(times_ms)
    recent = decayed_counts(items, ages, prior.half_life_days, item_count)
    counts = np.bincount(items, minlength=item_count).astype(np.float64)
    return prior.values_for(counts, recent, weekly_growth(items, ages, item_count))


def open_towers(workspace: Workspace, ds: str) -> tuple[Manifest, TwoTower]:
    """Returns the model of a day and its towers. Raises the errors of `find_model`."""
    manifest, settings = find_model(workspace, ds)
    return manifest, map_model(workspace.artifacts.local_path(manifest, ModelFile.WEIGHTS), settings.spec)


def find_model(workspace: Workspace, ds: str) -> tuple[Manifest, RunSettings]:
    """Returns the model of a day and its settings.

    Raises:
        PartitionMissingError: the model or an input of it is not stored.
        ProvenanceError: an input was written again after the model was fitted.
    """
    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_built_from(manifest, settings.manifest, samples)
    check_built_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, settings
