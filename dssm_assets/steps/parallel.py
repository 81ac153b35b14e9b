"""Runs tasks in this process or in several, with the same results. The evaluation scores ranges of users with it.

Processes are spawned, not forked, because a filesystem such as s3fs does not survive a fork. Each process builds its worker
once and then processes one task after the other.
"""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import row_blocks
from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.evaluation.baselines.fit_data import Arrays
from dssm_assets.core.evaluation.segments import Cuts
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets.core.progress import count_progress
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.local_files import ScratchFile
from dssm_assets.storage.manifest import Manifest


def run_parallel(
    workspace: Workspace, build: Callable[[Workspace], Any], tasks: Sequence[Any], inputs: dict[str, str]
) -> Iterator[Any]:
    """Yields the results in the order of the tasks, from `evaluation.num_processes` processes. A single task runs in this process.

    Args:
        build: makes a worker: `process(task)` returns the result of a task, whatever the tasks before it; `inputs` has the digest
            of every partition that the worker itself looks up. `build`, tasks and results must be picklable.
        inputs: the digests that each worker's `inputs` must equal.

    Raises:
        ProvenanceError: a worker finds other inputs in the store.
    """
    count = min(workspace.config.evaluation.num_processes, len(tasks))
    if count <= 1:
        if tasks:
            yield from map(build(workspace).process, tasks)
        return
    import torch  # takes a second and 100 MiB, and a process that only ranks lists does not need it

    count_parts = count_progress(workspace.log, workspace.now, len(tasks), "parts")
    spawn, start = multiprocessing.get_context("spawn"), (workspace, build, inputs, torch.get_num_threads())
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_start_process, initargs=start) as pool:
        try:
            for result in pool.map(_process, tasks):
                yield result
                count_parts(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_START: list[Any] = []
"""The arguments of a spawned process."""


def _start_process(*start: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the first ends the others
    _START[:] = start


@cache
def _make_worker() -> Any:
    """Returns the worker of a spawned process. Its first task makes it, because an error at a process's start has no text."""
    import torch

    workspace, build, inputs, num_threads = _START
    torch.set_num_threads(num_threads)  # sums can depend on it
    worker = build(workspace)
    changed = sorted(key for key in inputs.keys() | worker.inputs.keys() if inputs.get(key) != worker.inputs.get(key))
    if changed:
        where, remedy = f"inputs {', '.join(changed)}", "let one run finish before another writes its inputs"
        raise ProvenanceError(Fault(where, "unchanged content while they are read", "new content", remedy))
    return worker


def _process(task: Any) -> Any:
    return _make_worker().process(task)


RANGE_USERS: Final = 16 * 2048
"""A file has so many users, whatever the number of processes. Their lists, with 200 text ids each, take about 400 MiB."""


@dataclass(frozen=True)
class WrittenRange:
    """A staged file with the rows of a range of users, and figures about these users."""

    path: Path
    row_count: int
    schema: pa.Schema
    facts: Any


class RangeScorer(ABC):
    """A worker of `run_parallel`. Each task writes the rows of one range of users.

    Attributes:
        spec: contract of the table.
    """

    spec: TableSpec

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.inputs: dict[str, str] = {}

    @abstractmethod
    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, Any]:
        """Returns the table's rows for a range of users, and figures about these users."""

    def process(self, task: tuple[Truth, Cuts, Path]) -> WrittenRange:
        truth, cuts, path = task
        table, facts = self.rows(truth, cuts)
        count = self._workspace.tables.write_part(path, self.spec, table.to_batches(), table.schema)
        return WrittenRange(path, count, table.schema, facts)


def write_user_ranges(
    workspace: Workspace, make_scorer: Callable[[Workspace], RangeScorer], truth: Truth, cuts: Cuts, folder: Path
) -> list[WrittenRange]:
    """Scores the users range by range. Returns the written files in the order of the users; without users, one empty file."""
    tasks = []
    for number, users in enumerate(list(row_blocks(truth.num_users, RANGE_USERS)) or [np.zeros(0, np.int64)]):
        tasks.append((truth.select_users(users)[0], cuts.select_users(users), folder / part_name(number)))
    return list(run_parallel(workspace, make_scorer, tasks, {}))


def publish_user_ranges(
    workspace: Workspace, spec: TableSpec, ds: str, written: Sequence[WrittenRange], inputs: dict[str, str], **facts: Any
) -> Manifest:
    staged = [(part.path, part.row_count) for part in written]
    return workspace.tables.publish_parts(spec, ds, staged, schema=written[0].schema, inputs=inputs, facts=facts)


SharedArrays: TypeAlias = Mapping[str, NDArray[Any] | ScratchFile]
"""Name -> an array, or a handle: other processes of this machine can open it."""


def share_arrays(arrays: Arrays) -> SharedArrays:
    """Replaces arrays in mapped files by handles, so that other processes can open them."""
    return {name: ScratchFile.from_array(one) if isinstance(one, np.memmap) else one for name, one in arrays.items()}


def open_arrays(arrays: SharedArrays) -> Arrays:
    return {name: one.open() if isinstance(one, ScratchFile) else one for name, one in arrays.items()}
