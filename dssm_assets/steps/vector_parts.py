"""Tables of vectors written in parts: ranges of rows, a file each, by one process or several with the same bytes.

Every part is checked on its way into its file. Vectors that are not fit to be searched never take the place of what stood
before; the blocking check says so and stops what is behind.

Belongs here: cutting, writing, the report on structure and drift. Does not belong here: where vectors come from
(`vectors.py`), which process does what (`spread.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.spread import spread_over
from dssm_assets.steps.vector_drift import NAME as VECTOR_DRIFT
from dssm_assets.steps.vector_drift import vector_drift
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.table_store import ROW_GROUP_ROWS

if TYPE_CHECKING:
    from dssm_assets.core.retrieval.structure import VectorStructure

PART_ROWS = ROW_GROUP_ROWS
"""Rows of a file: cut the same way however many processes there are, so that their number changes no byte."""
Part = tuple[pa.Array, npt.NDArray[np.float32]]
"""Ids and their vectors, row by row."""


@dataclass(frozen=True)
class Vectors:
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

    vectors: Vectors
    made_from: tuple[Manifest, ...]

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
        self.inputs = digests(rows.made_from)

    @classmethod
    def of(cls, kind: Callable[[Workspace, str], TowerRows], ds: str, workspace: Workspace) -> _Writer:
        """Returns the writer of a day."""
        return cls(kind(workspace, ds), workspace)

    def do(self, task: _Task) -> _Done:
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
    vectors, inputs = rows.vectors, digests(rows.made_from)
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
        for task, done in zip(tasks, spread_over(workspace, build, tasks, inputs), strict=True):
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
    workspace: Workspace, vectors: Vectors, manifest: Manifest, report: Any, *, seconds: float, facts: Mapping[str, Any]
) -> StepResult:
    drift_facts: Mapping[str, Any] = {}
    drift_check = Check(VECTOR_DRIFT, False, "not compared: the vectors lack their structure")
    if report.passed:
        drift_check, drift_facts = vector_drift(workspace, vectors.spec, manifest)
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
