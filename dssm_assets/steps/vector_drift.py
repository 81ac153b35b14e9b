"""The drift of a partition of vectors against the last one before it; neither is ever held whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.earlier import partitions_before
from dssm_assets.steps.workspace import Check, Workspace
from dssm_assets.storage.manifest import Manifest

NAME = "vector_drift"
_BATCH_ROWS = 4096


def vector_drift(workspace: Workspace, spec: TableSpec, manifest: Manifest) -> tuple[Check, Mapping[str, Any]]:
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
    from dssm_assets.core.retrieval.vectors import matrix_of
    from dssm_assets.core.samples.id_index import IdIndex

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
