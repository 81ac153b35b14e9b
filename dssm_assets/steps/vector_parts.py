"""Vectors written in parts, by one process or several, and their checks: structure, and drift against the day before.

A table of vectors is cut into files of PART_ROWS rows, however many processes there are, so their number changes no byte.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.retrieval.drift import DriftReport, compute_drift, find_common_ids
from dssm_assets.core.retrieval.structure import VectorStructure
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
    def is_of_users(self) -> bool:
        return self.spec.key == (col.USER_ID,)

    @property
    def schema(self) -> pa.Schema:
        key, vector = (column.name for column in self.spec.columns)
        return pa.schema([(key, self.id_type), (vector, pa.list_(pa.float32(), self.dims))])


class VectorSource(ABC):
    """A tower over its table, for any range of rows; a worker of `run_parallel`.

    Attributes:
        partition: what is written.
        built_from: the partitions that it reads.
    """

    partition: VectorPartition
    built_from: tuple[Manifest, ...]

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens the source of a day."""
        self._workspace = workspace

    @property
    def inputs(self) -> dict[str, str]:
        return digests(self.built_from)

    @abstractmethod
    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the vectors of the rows first .. end - 1 in their order, and adds counts to the facts."""

    def process(self, task: tuple[int, int, Path]) -> tuple[int, VectorStructure, dict[str, int]]:
        """Writes a file of the rows first .. end - 1; returns their number, their structure and facts."""
        first, end, path = task
        partition, facts = self.partition, dict[str, int]()
        structure = VectorStructure(width=partition.dims, expected_row_count=end - first, is_of_users=partition.is_of_users)

        def batches() -> Iterator[pa.RecordBatch]:
            for ids, matrix in self.parts(first, end, facts):
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), pa.float32()), matrix.shape[1])
                batch = pa.RecordBatch.from_arrays([ids, vectors], schema=partition.schema)
                structure.check_rows(batch.column(0), batch.column(1))
                yield batch

        return self._workspace.tables.write_part(path, partition.spec, batches(), partition.schema), structure, facts


def write_vectors(workspace: Workspace, kind: type[VectorSource], ds: str) -> StepResult:
    """Writes the vectors of a day and checks their structure and their drift.

    Vectors with a broken structure do not replace an existing partition.
    """
    source = kind(workspace, ds)
    partition = source.partition
    structure = VectorStructure(width=partition.dims, expected_row_count=partition.row_count, is_of_users=partition.is_of_users)
    facts: dict[str, int] = {}
    with workspace.tables.partitions.staging() as folder:
        starts = range(0, max(partition.row_count, 1), PART_ROWS)  # an empty table has one file as well
        tasks = [(k, min(k + PART_ROWS, partition.row_count), folder / part_name(number)) for number, k in enumerate(starts)]
        is_single = workspace.config.evaluation.num_processes == 1 or len(tasks) == 1
        # A single process uses the source that is open already.
        build: Callable[[Workspace], Any] = partial(kind, ds=ds)
        written = map(source.process, tasks) if is_single else run_parallel(workspace, build, tasks, source.inputs)
        staged = []
        for task, (row_count, checked, counts) in zip(tasks, written, strict=True):
            staged.append((task[2], row_count))
            structure.append(checked)
            facts |= {name: facts.get(name, 0) + count for name, count in counts.items()}
        report, existing = structure.report(), workspace.find(partition.spec.name, ds)
        if existing is None or report.passed:
            manifest = workspace.tables.publish_parts(partition.spec, ds, staged, schema=partition.schema, inputs=source.inputs)
        else:
            manifest = existing
    drift_facts: dict[str, Any] = {}
    drift_check = Check("vector_drift", False, "not compared: the structure of the vectors is broken")
    if report.passed:
        drift_check, drift_facts = measure_drift(workspace, partition.spec, manifest)
    structure_check = Check("structure", report.passed, report.sentence)
    return StepResult(manifest, {"dims": partition.dims, **facts, **drift_facts}, (structure_check, drift_check))


def measure_drift(workspace: Workspace, spec: TableSpec, manifest: Manifest) -> tuple[Check, dict[str, Any]]:
    """Returns the check and the figures of the drift since the partition before, if there is such a partition."""
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
