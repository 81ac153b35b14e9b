"""Tasks in this process or in several: results come in order, failures are raised."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dssm_assets.core.errors import Fault, ProvenanceError, SchemaError
from dssm_assets.steps import parallel
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


_LINES: list[str] = []


def _run(tasks: Sequence[int], processes: int) -> Iterator[tuple[int, bool]]:
    _LINES.clear()
    config = SimpleNamespace(evaluation=SimpleNamespace(num_processes=processes))
    workspace: Any = SimpleNamespace(config=config, log=_LINES.append, now=itertools.count(0, 6).__next__)
    return run_parallel(workspace, _here, tasks, {})


@pytest.mark.parametrize(
    ("processes", "lines"), [(1, []), (2, ["1/3 parts, 0.17 parts/s, ETA 12 s", "2/3 parts, 0.17 parts/s, ETA 6 s"])]
)
def test_run_parallel_yields_results_in_task_order(processes: int, lines: list[str]) -> None:
    found = list(_run([3, 1, 2], processes))
    assert [value for value, _ in found] == [6, 2, 4]
    assert all(is_own for _, is_own in found)  # a process makes its own worker
    assert lines == _LINES  # a task takes 6 seconds; one process leaves progress to the worker


def test_run_parallel_raises_the_error_of_a_process(quick: None) -> None:
    with pytest.raises(SchemaError, match=r"task: expected 0 or more, got -1\. To fix: leave it out") as caught:
        list(_run([1, -1, 2], 2))
    assert [fault.got for fault in caught.value.faults] == ["-1"]


def test_a_worker_that_finds_other_inputs_ends_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_START", [None, _here, {"items/2024-01-02": "1"}, torch.get_num_threads()])
    with pytest.raises(ProvenanceError, match=r"inputs items/2024-01-02: expected unchanged content"):
        parallel._process(1)
