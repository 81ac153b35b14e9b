"""Two processes that share every batch, and which error is reported if one fails."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dssm_assets.core.errors import ConfigError, DssmError, Fault, SchemaError
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.extras.several_processes.fit_process import find_cause, gpu_of, run_in_processes, write_error
from dssm_assets_tests.steps.fit_jobs import QUIET, read_files, run, weights_of, write_job

TRAINING = {"batch_size": 27, "validation_days": 1, "weight_average": 0.9, "gradient_clip": 1.0, "epochs": 2}
"""160 samples in batches of 27 leave a last one of 25, and 120 one of 12: parts of unequal sizes."""


MODEL_SECTION: dict[str, Any] = {"prior": True, "learn_temperature": True, "user_positive_mask": True}


def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    job = write_job(tmp_path / "tables", {**QUIET, **MODEL_SECTION, "skip": True}, {**TRAINING, "embedding_optimiser": "adam"})
    alone = run(job)
    seen: list[Progress] = []
    shared = read_files(run_in_processes(replace(job, state=str(tmp_path / "none")), tmp_path, 2, seen.append))
    assert set(shared.files) == set(alone.files) > {ModelFile.SEARCH_WEIGHTS}
    losses = [json.loads(fitted.files[ModelFile.LOSSES]) for fitted in (alone, shared)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[0][-1] < losses[0][0]
    assert shared.report["validation_hit_rate"] == pytest.approx(alone.report["validation_hit_rate"], abs=0.05)
    theirs = weights_of(shared.files)
    for name, weight in weights_of(alone.files).items():
        assert np.allclose(weight, theirs[name], atol=2e-3), name
    assert seen[-1].step == seen[-1].steps


FAIL_IN_ONE_PROCESS = """
import os

if os.environ.get("RANK") == "1":
    from dssm_assets.core.errors import Fault, SchemaError
    from dssm_assets.core.training.trainer import Trainer

    train_step = Trainer.train_step

    def fail_in_third_step(self, batch):
        if self.steps_done == 2:
            raise SchemaError(Fault("the third batch", "rows", "none", "look at process 1"))
        return train_step(self, batch)

    Trainer.train_step = fail_in_third_step
"""
"""Python reads a module of this name as it starts, in every process."""


@pytest.mark.slow
def test_first_failure_is_reported_and_not_the_lost_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = write_job(tmp_path / "tables", {}, {})
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(FAIL_IN_ONE_PROCESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "start"), os.environ.get("PYTHONPATH", "")]))
    message = r"(?s)^training in 2 processes failed \(exit status 1\):\nprocess 1:.*SchemaError: the third batch: expected rows"
    with pytest.raises(DssmError, match=message) as caught:
        run_in_processes(job, tmp_path, 2, lambda progress: None)
    assert "peer" not in str(caught.value)


def test_each_process_has_its_own_gpu() -> None:
    assert [gpu_of(rank, 2) for rank in range(2)] == [0, 1]
    with pytest.raises(ConfigError, match=r"training.num_processes on CUDA: expected at most 2 processes on this machine"):
        gpu_of(2, 2)


TYPED = SchemaError(Fault("table samples", "a column", "none", "write it"))


def test_the_first_error_is_reported(tmp_path: Path) -> None:
    assert find_cause(tmp_path) is None
    for second, rank in enumerate((11, 0)):
        write_error(tmp_path, rank, TYPED)
        os.utime(tmp_path / f"error-{rank}.txt", (second, second))
    cause = find_cause(tmp_path)
    assert cause is not None
    assert cause.startswith("process 11:\n")
    assert "table samples: expected a column" in cause


def test_process_killed_while_it_writes_leaves_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_error(tmp_path, 1, TYPED)
    assert find_cause(tmp_path) is None
