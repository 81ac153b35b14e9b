"""Tasks that run in this process or in several ones, with the same results.

Processes are spawned, not forked, because a filesystem such as s3fs does not survive a fork. Each process builds its worker
once and then processes one task after the other.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.steps.workspace import Workspace, WorkspaceHandle

Task = TypeVar("Task")
Result = TypeVar("Result")
_Task_contra = TypeVar("_Task_contra", contravariant=True)
_Result_co = TypeVar("_Result_co", covariant=True)


class Worker(Protocol[_Task_contra, _Result_co]):
    """Processes tasks."""

    def process(self, task: _Task_contra) -> _Result_co:
        """Returns the result of a task; it must not depend on earlier tasks."""


class StoreWorker(Worker[_Task_contra, _Result_co], Protocol):
    """Processes tasks with partitions of the store."""

    inputs: dict[str, str]
    """ "asset/ds" -> digest of every partition that it reads."""


def run_parallel(
    workspace: Workspace,
    build: Callable[[Workspace], StoreWorker[Task, Result]],
    tasks: Sequence[Task],
    inputs: dict[str, str],
) -> Iterator[Result]:
    """Yields the results of the tasks in their order, from `evaluation.num_processes` processes.

    Args:
        workspace: opened again in each process.
        build: makes a worker; it can be pickled.
        tasks: see `run_tasks`.
        inputs: "asset/ds" -> digest of every partition that the result will record as an input.

    Raises:
        ProvenanceError: if a process finds other inputs in the store.
    """
    processes = workspace.config.evaluation.num_processes
    is_single = min(processes, len(tasks)) <= 1
    if is_single:
        return run_tasks(partial(build, workspace), tasks, 1, 1)
    import torch  # takes a second and 100 MiB; a process that ranks lists alone does without

    make = partial(_build_in_process, WorkspaceHandle.from_workspace(workspace), build, inputs)
    return run_tasks(make, tasks, processes, torch.get_num_threads())


def _build_in_process(handle: WorkspaceHandle, build: Callable[[Workspace], Any], inputs: dict[str, str]) -> Any:
    worker = build(handle.open())
    changed = sorted(key for key in inputs.keys() | worker.inputs.keys() if inputs.get(key) != worker.inputs.get(key))
    if changed:
        where, remedy = f"inputs {', '.join(changed)}", "let one run finish before another writes its inputs"
        raise ProvenanceError(Fault(where, "unchanged content while they are read", "new content", remedy))
    return worker


def run_tasks(
    make: Callable[[], Worker[Task, Result]], tasks: Sequence[Task], num_processes: int, num_threads: int
) -> Iterator[Result]:
    """Yields the results of the tasks in their order.

    Args:
        make: makes a worker; it can be pickled, and so can tasks and results.
        tasks: may be empty.
        num_processes: at most; with one process, or one task, this process does the work.
        num_threads: of torch in each process, because sums can depend on it.
    """
    count = min(num_processes, len(tasks))
    if count <= 1:
        worker = make() if tasks else None
        for task in tasks:
            assert worker is not None
            yield worker.process(task)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_start_worker, initargs=(make, num_threads)) as pool:
        try:
            yield from pool.map(_process, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_WORKER: dict[str, Any] = {}
"""The worker of a spawned process."""


def _start_worker(make: Callable[[], Any], num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the first one ends the others
    import torch

    torch.set_num_threads(num_threads)
    _WORKER["worker"] = make()


def _process(task: Any) -> Any:
    return _WORKER["worker"].process(task)
