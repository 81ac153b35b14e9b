"""Tables of users, written one range of users after another by one process or several: each range is a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from dssm_assets.core.evaluation.segments import Cuts
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.parallel import run_parallel
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest

RANGE_USERS: Final = 16 * 2048
"""Users of a file, the same for any number of processes. A whole number of the model's blocks, so that no block depends on the
cut. The lists of that many users, 200 text ids each, take about 400 MiB."""


@dataclass(frozen=True)
class UserRange:
    """Some evaluated users: their truth, their segments, and where their rows are written."""

    truth: Truth
    cuts: Cuts
    path: Path


@dataclass(frozen=True)
class WrittenRange:
    """A staged file of rows, and figures about its users."""

    path: Path
    row_count: int
    schema: pa.Schema
    facts: Any


class RangeScorer(Protocol):
    """Makes the rows of one range of users after another."""

    spec: TableSpec
    """Of the table."""
    inputs: dict[str, str]
    """ "asset/ds" -> digest of every partition that it reads."""

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, Any]:
        """Returns the rows of a range, and figures about its users."""


def write_user_ranges(
    workspace: Workspace,
    make_scorer: Callable[[Workspace], RangeScorer],
    truth: Truth,
    cuts: Cuts,
    folder: Path,
    inputs: dict[str, str],
) -> list[WrittenRange]:
    """Returns the files of all ranges, in the order of the users; without users one empty file.

    Args:
        workspace: opened again in each process.
        make_scorer: can be pickled.
        inputs: what the scorer must find in the store, as of `RangeScorer.inputs`.
    """
    ranges = list(_cut_ranges(truth, cuts, folder))
    return list(run_parallel(workspace, partial(_RangeWriter, make_scorer), ranges, inputs))


def publish_user_ranges(
    workspace: Workspace, spec: TableSpec, ds: str, written: Sequence[WrittenRange], inputs: dict[str, str], **facts: Any
) -> Manifest:
    """Makes the staged files, at least one, the partition of a day."""
    staged = [(part.path, part.row_count) for part in written]
    return workspace.tables.publish_parts(spec, ds, staged, schema=written[0].schema, inputs=inputs, facts=facts)


class _RangeWriter:
    """A worker of `run_parallel`."""

    def __init__(self, make_scorer: Callable[[Workspace], RangeScorer], workspace: Workspace) -> None:
        self._tables, self._scorer = workspace.tables, make_scorer(workspace)
        self.inputs = self._scorer.inputs

    def process(self, users: UserRange) -> WrittenRange:
        table, facts = self._scorer.rows(users.truth, users.cuts)
        row_count = self._tables.write_part(users.path, self._scorer.spec, table.to_batches(), table.schema)
        return WrittenRange(users.path, row_count, table.schema, facts)


def _cut_ranges(truth: Truth, cuts: Cuts, folder: Path) -> Iterator[UserRange]:
    for number, start in enumerate(range(0, max(truth.num_users, 1), RANGE_USERS)):
        stop = min(start + RANGE_USERS, truth.num_users)
        part, segments = truth.users_from(start, stop), cuts.users_from(start, stop)
        part = replace(part, user_ids=_copy_slice(part.user_ids))
        segments = replace(segments, users={name: _copy_slice(labels) for name, labels in segments.users.items()})
        yield UserRange(part, segments, folder / part_name(number))


def _copy_slice(column: pa.Array) -> pa.Array:
    """Returns a copy of a slice: pickled, the slice itself would take the whole array along."""
    return column.take(pa.array(range(len(column)), pa.int64()))
