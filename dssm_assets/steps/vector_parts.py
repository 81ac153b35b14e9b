"""Vectors written in parts, by one process or several, and their checks: structure, and drift against the day before.

A table of vectors is cut into files of PART_ROWS rows, however many processes there are, so their number changes no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.retrieval.drift import DriftReport, compute_drift, find_common_ids
from dssm_assets.core.retrieval.structure import StructureReport, VectorStructure
from dssm_assets.core.retrieval.vectors import to_matrix
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.parallel import run_parallel
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests, partitions_before
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import ROW_GROUP_ROWS

PART_ROWS = ROW_GROUP_ROWS
"""Rows of a file."""
VectorPart = tuple[pa.Array, npt.NDArray[np.float32]]
"""Ids and their vectors, row by row."""
_DRIFT_BATCH_ROWS = 4096

DRIFT_IDS: Final = 10_000
"""Common ids over which drift is measured; of more a sample is drawn."""


@dataclass(frozen=True)
class VectorPartition:
    """The partition that is written: its contract, its day and its shape."""

    spec: TableSpec
    ds: str
    id_type: pa.DataType
    dims: int
    row_count: int

    @property
    def schema(self) -> pa.Schema:
        key, vector = (column.name for column in self.spec.columns)
        return pa.schema([(key, self.id_type), (vector, pa.list_(pa.float32(), self.dims))])


class VectorSource(Protocol):
    """A tower over its table, for any range of rows."""

    partition: VectorPartition
    built_from: tuple[Manifest, ...]

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the vectors of the rows first .. end - 1 in their order, and adds counts to the facts."""


OpenSource = Callable[[Workspace, str], VectorSource]
"""Opens the source of a day; it can be pickled."""


def write_vectors(workspace: Workspace, open_source: OpenSource, ds: str) -> StepResult:
    """Writes the vectors of a day and checks their structure and their drift.

    Vectors with a broken structure do not replace an existing partition.
    """
    source = open_source(workspace, ds)
    start = workspace.now()
    partition, inputs = source.partition, digests(source.built_from)
    structure = VectorStructure(width=partition.dims, expected_row_count=partition.row_count)
    facts: dict[str, int] = {}
    with workspace.tables.partitions.staging() as folder:
        tasks = _cut(partition.row_count, folder)
        # A single process uses the source that is open already.
        is_single = workspace.config.evaluation.num_processes == 1 or len(tasks) == 1
        build = partial(_Writer, source) if is_single else partial(_Writer.open, open_source, ds)
        staged = []
        for task, written in zip(tasks, run_parallel(workspace, build, tasks, inputs), strict=True):
            staged.append((task.path, written.row_count))
            structure.append(written.structure)
            facts |= {name: facts.get(name, 0) + count for name, count in written.facts.items()}
        report, existing = structure.report(), workspace.find(partition.spec.name, ds)
        if existing is None or report.passed:
            manifest = workspace.tables.publish_parts(partition.spec, ds, staged, schema=partition.schema, inputs=inputs)
        else:
            manifest = existing
    return _report(workspace, partition, manifest, report, seconds=workspace.now() - start, facts=facts)


@dataclass(frozen=True)
class _Task:
    """A file to write, and its rows first .. end - 1."""

    first: int
    end: int
    path: Path


@dataclass(frozen=True)
class _Written:
    """A file that was written."""

    row_count: int
    structure: VectorStructure
    facts: dict[str, int]


def _cut(row_count: int, folder: Path) -> list[_Task]:
    """Returns the files; an empty table has one as well."""
    starts = range(0, max(row_count, 1), PART_ROWS)
    return [_Task(first, min(first + PART_ROWS, row_count), folder / part_name(k)) for k, first in enumerate(starts)]


class _Writer:
    """Writes files of vectors."""

    def __init__(self, source: VectorSource, workspace: Workspace) -> None:
        self._tables, self._source = workspace.tables, source
        self.inputs = digests(source.built_from)

    @classmethod
    def open(cls, open_source: OpenSource, ds: str, workspace: Workspace) -> _Writer:
        """Returns a writer with a source of its own."""
        return cls(open_source(workspace, ds), workspace)

    def process(self, task: _Task) -> _Written:
        partition = self._source.partition
        structure = VectorStructure(width=partition.dims, expected_row_count=task.end - task.first)
        facts: dict[str, int] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for ids, matrix in self._source.parts(task.first, task.end, facts):
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), pa.float32()), matrix.shape[1])
                batch = pa.RecordBatch.from_arrays([ids, vectors], schema=partition.schema)
                structure.check_rows(batch.column(0), batch.column(1))
                yield batch

        row_count = self._tables.write_part(task.path, partition.spec, batches(), partition.schema)
        return _Written(row_count, structure, facts)


def _report(
    workspace: Workspace,
    partition: VectorPartition,
    manifest: Manifest,
    structure: StructureReport,
    *,
    seconds: float,
    facts: Mapping[str, Any],
) -> StepResult:
    drift_facts: dict[str, Any] = {}
    drift_check = Check("vector_drift", False, "not compared: the structure of the vectors is broken")
    if structure.passed:
        drift_check, drift_facts = measure_drift(workspace, partition.spec, manifest)
    figures = {
        "dims": partition.dims,
        "inference_seconds": round(seconds, 3),
        "inference_rows_per_s": round(structure.row_count / max(seconds, 1e-9), 1),
        **facts,
        **drift_facts,
    }
    structure_check = Check("structure", structure.passed, structure.sentence, structure.facts())
    return StepResult(manifest, figures, (structure_check, drift_check))


def measure_drift(workspace: Workspace, spec: TableSpec, manifest: Manifest) -> tuple[Check, dict[str, Any]]:
    """Returns the check and the figures of the drift since the partition before; no figures if there is none.

    Args:
        spec: contract of the table: its id and its vectors.
    """
    before = partitions_before(workspace, spec.name, manifest.ds, 1)
    if not before:
        return Check("vector_drift", True, f"no partition before {manifest.ds} to compare with"), {}
    gate, seed = workspace.config.gate, workspace.config.seed
    key = spec.key[0]
    ids = [workspace.tables.read(part, [key]).column(key) for part in (manifest, before[0])]
    common = find_common_ids(ids[0], ids[1], limit=DRIFT_IDS, seed=seed)
    now, then = (_read_vectors(workspace, spec, part, common.ids) for part in (manifest, before[0]))
    report = DriftReport(before[0].ds, common, compute_drift(now, then, seed=seed), now.shape[1], gate.min_vector_cosine)
    facts = report.facts()
    return Check("vector_drift", report.passed, report.sentence, facts), facts


def _read_vectors(workspace: Workspace, spec: TableSpec, manifest: Manifest, ids: pa.Array) -> npt.NDArray[np.float32]:
    """Returns the vectors of ids, in their order. One batch is in memory at a time."""
    key, column = spec.key[0], spec.columns[1].name
    width = workspace.tables.open(manifest).schema.field(column).type.list_size
    index = IdIndex(ids)
    found = np.zeros((len(ids), width), np.float32)
    if not len(ids):
        return found
    for batch in workspace.tables.batches(manifest, [key, column], batch_rows=_DRIFT_BATCH_ROWS):
        rows = index.lookup(batch.column(0))
        matrix = to_matrix(batch.column(1), f"{manifest.key}, column {column}")
        found[rows[rows >= 0]] = matrix[rows >= 0]
    return found
