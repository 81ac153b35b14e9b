"""Tasks in this process or in several: results come in order, failures are raised."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.steps.parallel import run_tasks


@dataclass(frozen=True)
class Doubler:
    made_in: int = 0

    def process(self, task: int) -> tuple[int, bool]:
        if task < 0:
            raise SchemaError(Fault("task", "0 or more", str(task), "leave it out"))
        return 2 * task, os.getpid() == self.made_in


def _here() -> Doubler:
    return Doubler(os.getpid())


@pytest.mark.parametrize("processes", [1, 2])
def test_run_tasks_yields_results_in_task_order(processes: int) -> None:
    found = list(run_tasks(_here, [3, 1, 2], processes, 1))
    assert [value for value, _ in found] == [6, 2, 4]
    assert all(is_own for _, is_own in found)  # a process makes its own worker


def test_run_tasks_raises_the_error_of_a_process(quick: None) -> None:
    with pytest.raises(SchemaError, match=r"task: expected 0 or more, got -1\. To fix: leave it out") as caught:
        list(run_tasks(_here, [1, -1, 2], 2, 1))
    assert [fault.got for fault in caught.value.faults] == ["-1"]
