"""Fits of the small world by two real processes, which are started once for all fits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.extras.several_processes.process_group import ProcessGroup
from dssm_assets.steps.fit_job import FitJob, run_job
from dssm_assets_tests import quick_processes

REPORT = "full_report.json"


class _StoppedError(Exception):
    """Stops a fit in every process at the same step."""


@dataclass(frozen=True)
class SharedFit:
    """A job, and the step after which it is stopped; None: it runs to its end."""

    job: FitJob
    stop: int | None = None


def run_shared(fits: Mapping[str, Sequence[SharedFit]], folder: Path) -> dict[str, dict[str, bytes]]:
    """Returns the files that the last fit of each list leaves, and its report, by name; two processes run them in turn."""
    folder.mkdir()
    quick_processes.start(_run, dict(fits), str(folder))
    return {name: {path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in fits}


def _run(rank: int, fits: dict[str, Sequence[SharedFit]], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for name, parts in fits.items():
        for part in parts:
            _fit(ProcessGroup(rank, 2), part, Path(folder) / name)
    dist.destroy_process_group()


def _fit(ranks: ProcessGroup, part: SharedFit, out: Path) -> None:
    steps = 0

    def progress(at: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == part.stop:
            raise _StoppedError

    out.mkdir(exist_ok=True)
    try:
        outcome = run_job(part.job, progress, time.perf_counter, out, ranks)
    except _StoppedError:
        return
    if outcome is not None:
        assert outcome.files[ModelFile.WEIGHTS] == out / ModelFile.WEIGHTS
        (out / REPORT).write_text(json.dumps(outcome.report))
