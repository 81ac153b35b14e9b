"""Work that is cut into tasks, done in this process or spread over several; the results are the same.

Processes are started anew (spawn), not forked: a filesystem such as s3fs does not survive a fork. Each makes its worker
once and then does one task after the other.

Belongs here: who does which task. Does not belong here: what the tasks are (`vector_parts`, `hit_parts`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_TaskDone_contra = TypeVar("_TaskDone_contra", contravariant=True)
_ResultMade_co = TypeVar("_ResultMade_co", covariant=True)


class Worker(Protocol[_TaskDone_contra, _ResultMade_co]):
    """Does tasks."""

    def do(self, task: _TaskDone_contra) -> _ResultMade_co:
        """Returns the result of a task, which must not depend on tasks done before."""


def spread(
    make: Callable[[], Worker[Task, Result]], tasks: Sequence[Task], num_processes: int, num_threads: int
) -> Iterator[Result]:
    """Yields the results of the tasks in their order.

    Args:
        make: makes a worker; with tasks and results it travels to the processes and back.
        tasks: one without tasks is fine.
        num_processes: at most; with one, and for a single task, this process does the work.
        num_threads: of torch in each process, for sums may depend on it.
    """
    count = min(num_processes, len(tasks))
    if count <= 1:
        worker = make() if tasks else None
        for task in tasks:
            assert worker is not None
            yield worker.do(task)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(make, num_threads)) as pool:
        try:
            yield from pool.map(_do, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_HELD: dict[str, Any] = {}
"""The worker of a process that was started for tasks."""


def _begin(make: Callable[[], Any], num_threads: int) -> None:
    import torch

    torch.set_num_threads(num_threads)
    _HELD["worker"] = make()


def _do(task: Any) -> Any:
    return _HELD["worker"].do(task)
