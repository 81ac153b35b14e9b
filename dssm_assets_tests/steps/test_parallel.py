"""Tasks in this process or in several: results come in order, failures are raised."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.steps.parallel import run_parallel


@dataclass(frozen=True)
class Doubler:
    made_in: int = 0
    inputs: dict[str, str] = field(default_factory=dict)

    def process(self, task: int) -> tuple[int, bool]:
        if task < 0:
            raise SchemaError(Fault("task", "0 or more", str(task), "leave it out"))
        return 2 * task, os.getpid() == self.made_in


def _here(workspace: Any) -> Doubler:
    return Doubler(os.getpid())


def _run(tasks: Sequence[int], processes: int) -> Iterator[tuple[int, bool]]:
    workspace: Any = SimpleNamespace(config=SimpleNamespace(evaluation=SimpleNamespace(num_processes=processes)))
    return run_parallel(workspace, _here, tasks, {})


@pytest.mark.parametrize("processes", [1, 2])
def test_run_parallel_yields_results_in_task_order(processes: int) -> None:
    found = list(_run([3, 1, 2], processes))
    assert [value for value, _ in found] == [6, 2, 4]
    assert all(is_own for _, is_own in found)  # a process makes its own worker


def test_run_parallel_raises_the_error_of_a_process(quick: None) -> None:
    with pytest.raises(SchemaError, match=r"task: expected 0 or more, got -1\. To fix: leave it out") as caught:
        list(_run([1, -1, 2], 2))
    assert [fault.got for fault in caught.value.faults] == ["-1"]
