"""Fits of the small world as jobs in files, and a process that ends itself in the middle of one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.tower_spec import TowerSpec, tower_spec
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.steps.fit_job import FitJob, FitOutcome, run_job
from dssm_assets.storage.local_files import write_arrow_table
from dssm_assets_tests import quick_processes
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, SMALL_TRAINING, model_from_bytes, world

EVERY_STEP = 1e-9
"""checkpoint_minutes after which every step stores a state."""
QUIET = {"dropout": 0.0}
"""Dropout is drawn by each process for its own rows, so it differs from that of one process."""


def write_job(folder: Path, model: dict[str, Any], training: dict[str, Any], events: int = 16) -> FitJob:
    """Returns the job of a fit to the small world, its tables written below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = world(events=events)
    paths = {}
    for field in fields(tables):
        path = folder / f"{field.name}.arrow"
        write_arrow_table(path, getattr(tables, field.name))
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


class Fitted(NamedTuple):
    """What a fit leaves: the content of its files, and its report."""

    files: dict[str, bytes]
    report: dict[str, Any]


def run(job: FitJob) -> Fitted:
    with TemporaryDirectory() as out:
        return read_files(run_job(job, lambda progress: None, time.perf_counter, Path(out)))


def read_files(outcome: FitOutcome) -> Fitted:
    return Fitted({name: path.read_bytes() for name, path in outcome.files.items()}, outcome.report)


def weights_of(files: Mapping[str, bytes]) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the weights that a fit left, by name."""
    spec = TowerSpec.model_validate_json(files[ModelFile.TOWERS].decode())
    towers = model_from_bytes(files[ModelFile.WEIGHTS], spec)
    return {name: tensor.numpy() for name, tensor in towers.state_dict().items()}


def run_and_kill(job: FitJob, phase: str, step: int) -> None:
    """Runs a job in a process that kills itself, with a signal that cannot be caught, after this step."""
    process = quick_processes.context().Process(target=_run_until_killed, args=(job.to_json(), phase, step))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _run_until_killed(job: str, phase: str, step: int) -> None:
    def progress(at: Progress) -> None:
        if (at.phase, at.step) == (phase, step):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with TemporaryDirectory() as out:
        run_job(FitJob.from_json(job), progress, time.perf_counter, Path(out))
