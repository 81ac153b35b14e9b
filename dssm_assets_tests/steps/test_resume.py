"""A killed fit resumes from its stored state and ends with the bytes of one that was not killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.training.resume import read_state
from dssm_assets_tests.steps.fit_jobs import EVERY_STEP, run, run_and_kill, write_job

ALL: dict[str, Any] = {"dropout": 0.2, "norm": "batch", "learn_temperature": True, "embedding_dropout": 0.1}
SEQUENCE: dict[str, Any] = {"poolings": [{"kind": "sequence", "length": 5, "dropout": 0.3}, {}]}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, int]] = [
    ("the defaults, inside an epoch", {}, {}, "fit", 7),
    ("every kind of state", ALL, {"embedding_optimiser": "adam", "weight_average": 0.9}, "fit", 8),
    ("encoders of shared windows", SEQUENCE, {"group_users": True, "weight_average": 0.9}, "fit", 8),
    ("in the search", {**ALL, "prior": True}, {"validation_days": 1, "weight_average": 0.9, "epochs": 3}, "search", 7),
    ("after the search", {"prior": True}, {"validation_days": 1, "weight_average": 0.9}, "fit", 2),
    ("the last of an epoch, without refit", {}, {"validation_days": 1, "refit": False, "epochs": 3}, "search", 9),
]


@pytest.mark.parametrize(("model", "training", "phase", "step"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_resumed_fit_equals_uninterrupted_fit(
    model: dict[str, Any], training: dict[str, Any], phase: str, step: int, tmp_path: Path
) -> None:
    # 160 samples in batches of 32 are 5 steps an epoch; of the days before the last, 120 samples, 4 steps.
    job = write_job(tmp_path, model, {**training, "checkpoint_minutes": EVERY_STEP})
    whole = run(replace(job, state=str(tmp_path / "other.state")))
    run_and_kill(job, phase, step)
    found = read_state(Path(job.state).read_bytes(), job.key)
    assert found is not None
    history = found[0]
    assert (len(history.losses), history.is_search) == (step - 1, phase == "search")
    resumed = run(job)
    assert resumed.files == whole.files
    assert resumed.report["resumed_at_step"] == history.steps_done > 0
    assert whole.report["resumed_at_step"] is None
    assert b"resumed" not in whole.files[ModelFile.REPORT]


def test_state_of_other_inputs_is_ignored(tmp_path: Path) -> None:
    job = write_job(tmp_path, {}, {"checkpoint_minutes": EVERY_STEP})
    whole = run(job)
    assert Path(job.state).exists()
    again = run(replace(job, key="of another day"))
    assert again.report["resumed_at_step"] is None
    assert again.files == whole.files


def test_without_checkpoints_no_state_is_stored(tmp_path: Path) -> None:
    job = write_job(tmp_path, {}, {"checkpoint_minutes": None})
    run(job)
    assert not Path(job.state).exists()
    assert not list(tmp_path.glob("*.part"))
