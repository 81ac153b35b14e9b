"""Stored hit counts, read a cell at a time.

Belongs here: where the rows of a cell lie. Does not belong here: what is added up (`core/evaluation/rates`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER
from dssm_assets.core.evaluation.truth import Population, Scope
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest

_KEYS = (SCORER, SCOPE, POPULATION)


class StoredCells:
    """The cells of a stored hit_counts. Each file is sorted by cell, so a cell is one range of rows of each file."""

    def __init__(self, workspace: Workspace, manifest: Manifest) -> None:
        """Looks where the cells begin and end."""
        self._tables, self._manifest = workspace.tables, manifest
        self._columns = [column.name for column in manifest.columns if column.name not in _KEYS]
        self._ranges: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for key, first, end in self._runs():
            self._ranges.setdefault(key, []).append((first, end))

    @property
    def num_rows(self) -> int:
        """Returns the rows of all cells."""
        return self._manifest.rows

    def cell(self, scope: Scope, population: Population) -> dict[str, pa.Table]:
        """Returns scorer -> its rows of a cell, for scorers that have any."""
        found = {}
        for scorer, *rest in sorted(self._ranges):
            if rest == [scope, population]:
                ranges = self._ranges[scorer, scope, population]
                parts = [batch for first, end in ranges for batch in self._rows(first, end)]
                found[scorer] = pa.Table.from_batches(parts).combine_chunks()
        return found

    def _rows(self, first: int, end: int) -> Iterator[pa.RecordBatch]:
        return self._tables.rows(self._manifest, self._columns, first, end)

    def _runs(self) -> Iterator[tuple[tuple[str, ...], int, int]]:
        """Yields (scorer, scope, population), first and end of rows that have these keys; one range may come in pieces."""
        begin = 0
        for batch in self._tables.batches(self._manifest, _KEYS, as_dictionaries=_KEYS):
            columns = [batch.column(name) for name in _KEYS]
            codes = np.stack([column.indices.to_numpy(zero_copy_only=False) for column in columns])
            starts = np.flatnonzero((np.diff(codes, axis=1, prepend=-1) != 0).any(axis=0)).tolist()
            for first, end in zip(starts, [*starts[1:], batch.num_rows], strict=False):
                yield tuple(column[first].as_py() for column in columns), begin + first, begin + end
            begin += batch.num_rows
