"""Fits of the small world as jobs in files, and a process that ends itself in the middle of one.

`python -m dssm_assets_tests.steps.fit_jobs JOB PHASE STEP` runs a job and kills its own process with a
signal that cannot be caught, after that step of that phase.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.steps.fit_job import FitJob, FitOutcome, run_job
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, SMALL_TRAINING, world

EVERY_STEP = 1e-9
"""checkpoint_minutes after which every step stores a state."""


def write_job(folder: Path, model: dict[str, Any], training: dict[str, Any], events: int = 16) -> FitJob:
    """Returns the job of a fit to the small world, its tables written below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = world(events=events)
    paths = {}
    for field in fields(tables):
        path = folder / f"{field.name}.arrow"
        table = getattr(tables, field.name)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        paths[field.name] = str(path)
    section = Model(**{**SMALL_MODEL, **model})
    return FitJob(
        tables=paths,
        towers=tower_spec(FEATURES, section).to_json(),
        model=section.model_dump(mode="json"),
        training=Training(**{**SMALL_TRAINING, **training}).model_dump(mode="json"),
        seed=1,
        ks=(3,),
        key="the key",
        state=str(folder / "fit.state"),
    )


def run(job: FitJob) -> FitOutcome:
    """Returns what a job leaves in this process."""
    outcome = run_job(job, lambda progress: None, time.perf_counter)
    assert outcome is not None
    return outcome


def run_and_kill(job: FitJob, folder: Path, phase: str, step: int) -> None:
    """Runs a job in a process that kills itself after this step."""
    file = folder / "killed.json"
    file.write_text(job.to_json())
    command = [sys.executable, "-m", "dssm_assets_tests.steps.fit_jobs", str(file), phase, str(step)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def main(path: str, phase: str, step: int) -> None:
    def progress(at: Progress) -> None:
        if (at.phase, at.step) == (phase, step):
            os.kill(os.getpid(), signal.SIGKILL)

    run_job(FitJob.from_json(Path(path).read_text()), progress, time.perf_counter)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
