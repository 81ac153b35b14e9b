"""Processes that begin with everything imported: forked from one process that has imported it, and does nothing else.

A spawned process imports for three seconds first. Tests of what processes compute use these; that spawned ones work is
tested once for each use (`test_parallel.py`, `test_parallel_runs.py`, `test_fit_process.py`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import BaseContext, ForkServerContext

import pytest

IMPORTED = (
    "dssm_assets_tests.steps.fit_jobs",
    "dssm_assets_tests.worlds",
    "dssm_assets.materialize",
    "dssm_assets.steps.evaluation",
)


def context() -> ForkServerContext:
    """Returns the context of such processes. They have the environment of the first one's start."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(IMPORTED))
    return found


def start(work: Callable[..., None], *arguments: object) -> None:
    """Runs work(rank, *arguments) in two of them, ranks 0 and 1.

    Raises:
        ProcessRaisedException: one failed; the other one is ended.
    """
    import torch.multiprocessing as mp

    context()
    mp.start_processes(work, arguments, nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]


def in_place_of_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `multiprocessing.get_context("spawn")` return their context until the end of a test."""
    quick, whole = context(), multiprocessing.get_context

    def get_context(method: str | None = None) -> BaseContext:
        return quick if method == "spawn" else whole(method)

    monkeypatch.setattr(multiprocessing, "get_context", get_context)
