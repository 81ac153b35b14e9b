"""Work that is cut into tasks, done in this process or spread over several; the results are the same.

Processes are started anew (spawn), not forked: a filesystem such as s3fs does not survive a fork. Each makes its worker
once and then does one task after the other.

Belongs here: who does which task, workers that read what stands in the store. Does not belong here: what the tasks are
(`vector_parts`, `hit_parts`, `list_parts`).
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.steps.workspace import Check, StepResult, Workspace, WorkspaceHandle
from dssm_assets.storage.config_file import LoadedConfig, config_from_json, config_to_json
from dssm_assets.storage.manifest import Manifest

Task = TypeVar("Task")
Result = TypeVar("Result")
_TaskDone_contra = TypeVar("_TaskDone_contra", contravariant=True)
_ResultMade_co = TypeVar("_ResultMade_co", covariant=True)


class Worker(Protocol[_TaskDone_contra, _ResultMade_co]):
    """Does tasks."""

    def process(self, task: _TaskDone_contra) -> _ResultMade_co:
        """Returns the result of a task, which must not depend on tasks done before."""


class StoreWorker(Worker[_TaskDone_contra, _ResultMade_co], Protocol):
    """Does tasks with what stands in the store."""

    inputs: dict[str, str]
    """ "asset/ds" -> digest of every partition that it reads."""


def run_parallel(
    workspace: Workspace,
    build: Callable[[Workspace], StoreWorker[Task, Result]],
    tasks: Sequence[Task],
    inputs: dict[str, str],
) -> Iterator[Result]:
    """Yields the results of the tasks in their order, done by `evaluation.num_processes` processes.

    Args:
        workspace: opened again in each of them.
        build: makes a worker; it can be pickled.
        tasks: see `run_tasks`.
        inputs: what the result will be said to be made from.

    Raises:
        ProvenanceError: a process found something else in the store.
    """
    import torch

    processes = workspace.config.evaluation.num_processes
    is_here = min(processes, len(tasks)) <= 1
    make = (
        partial(build, workspace)
        if is_here
        else partial(_reopened_worker, WorkspaceHandle.from_workspace(workspace), build, inputs)
    )
    return run_tasks(make, tasks, processes, torch.get_num_threads())


def _reopened_worker(handle: WorkspaceHandle, build: Callable[[Workspace], Any], inputs: dict[str, str]) -> Any:
    worker = build(handle.open())
    changed = sorted(key for key in inputs.keys() | worker.inputs.keys() if inputs.get(key) != worker.inputs.get(key))
    if changed:
        where, remedy = f"inputs {', '.join(changed)}", "let one run finish before another writes what it reads"
        raise ProvenanceError(Fault(where, "to stay while they are read", "written anew in between", remedy))
    return worker


def run_tasks(
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
            yield worker.process(task)
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
    return _HELD["worker"].process(task)


FAULT: Final = "fault"
"""Key of the message that says why a job failed."""


@dataclass(frozen=True)
class Job:
    """The step `step` of `dssm_assets/steps/<module>.py`, over days, in a scene."""

    module: str
    step: str
    days: tuple[str, ...]
    loaded: LoadedConfig

    def to_message(self) -> dict[str, Any]:
        """Returns the job as JSON values."""
        return {"module": self.module, "step": self.step, "days": list(self.days), "scene": config_to_json(self.loaded)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Job:
        """Returns the job that a message tells."""
        return cls(message["module"], message["step"], tuple(message["days"]), config_from_json(message["scene"]))

    def run(self, workspace: Workspace) -> Iterator[StepResult]:
        """Runs the step in a workspace."""
        module = importlib.import_module(f"dssm_assets.steps.{self.module}")
        step: Callable[[Workspace, Sequence[str]], Iterator[StepResult]] = getattr(module, self.step)
        return step(workspace, self.days)


def message_of(result: StepResult, seconds: float) -> dict[str, Any]:
    """Returns what a step made in how many seconds, as JSON values. Reports and images do not travel.

    Raises:
        TypeError: a fact is no JSON value.
    """
    body = {
        "manifest": json.loads(result.manifest.to_json()),
        "facts": dict(result.facts),
        "checks": [asdict(check) for check in result.checks],
        "seconds": seconds,
    }
    return dict(json.loads(json.dumps(body)))


def result_of(message: Mapping[str, Any]) -> tuple[StepResult, float]:
    """Returns the result and the seconds that a message tells."""
    checks = tuple(Check(**check) for check in message["checks"])
    manifest = Manifest.from_json(json.dumps(message["manifest"]))
    return StepResult(manifest, message["facts"], checks), float(message["seconds"])
