"""Two processes that share every batch learn what one learns; sharded tables learn what whole ones learn."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.steps.fit_job import FitJob, WarmFiles, save_carried_rows
from dssm_assets.storage.local_files import write_arrow_table
from dssm_assets_tests.core.training.worlds import ITEMS, USERS
from dssm_assets_tests.extras.several_processes.shared_fits import REPORT, SharedFit, run_shared
from dssm_assets_tests.steps.fit_jobs import EVERY_STEP, QUIET, run, weights_of, write_job

SLOW = {"learning_rate": 1e-4, "batch_size": 54, "epochs": 2}
"""A bias before a batch norm has no gradient but rounding, which Adam makes steps of: they stay small at this rate."""
WINDOWS = {"poolings": [{"kind": "sequence", "length": 5, "dropout": 0.0}, {"kind": "mean"}]}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a last batch of one sample": ({}, {}),
    "batch norm": ({"norm": "batch"}, SLOW),
    "batch norm over sessions": ({"norm": "batch", "history": "day"}, {**SLOW, "group_sessions": True}),
    "a cut of histories, hidden context": ({"history_cut": {"sample_frac": 0.5}, "context_dropout": 0.5}, {}),
    "leave one out": ({"history": "leave_one_out", "history_cut": {"sample_frac": 0.5}}, {}),
    "known positives, no merged columns": ({"user_positive_mask": True, "loss": "sigmoid"}, {}),
    "sampled negatives alone": ({"in_batch": False, "num_sample": 6}, {}),
    "hard negatives": ({"sampler": "hard", "num_hard_sample": 20, "user_positive_mask": True}, {}),
    "encoders of shared windows": (WINDOWS, {"group_users": True}),
    "encoders of shared windows, sessions, a cut": (
        {**WINDOWS, "history_cut": {"sample_frac": 0.5}, "history": "day"},
        {"group_users": True, "group_sessions": True},
    ),
    "encoders of single samples": (WINDOWS, {}),
    "several interests": ({"num_interests": 2, "poolings": [{"kind": "attention"}]}, {}),
}
SHARDED: dict[str, Any] = {
    "prior": True,
    "norm": "batch",
    "dropout": 0.2,
    "poolings": [{"kind": "attention"}, {"kind": "mean"}, {"kind": "sequence", "length": 5}],
}
SHARDED_TRAINING = {
    "group_users": True,
    "batch_size": 27,
    "validation_days": 1,
    "weight_average": 0.9,
    "embedding_optimiser": "adam",
}
STOPPED = {"in the search": 6, "after the search": 14}
"""Of the search 120 samples are 5 steps an epoch, two epochs; of the fit 160 are 6."""


def _with_shards(job: FitJob, name: str, **training: Any) -> FitJob:
    return replace(job, state=f"{job.state}.{name}", training={**job.training, "shard_tables": True, **training})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    """Returns a job whose fit has every kind of state."""
    return write_job(tmp_path_factory.mktemp("sharded"), SHARDED, SHARDED_TRAINING)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FitJob]:
    def made(name: str) -> FitJob:
        (model, training), folder = CASES[name], tmp_path_factory.mktemp("case")
        job = write_job(folder, {**QUIET, **model}, {"batch_size": 53, "epochs": 1, **training})
        if model.get("sampler") != "hard":
            return job
        # Every user was shown the items of the other half.
        shown = [(user, item, 0) for user in range(USERS) for item in range(ITEMS) if (item < ITEMS // 2) == bool(user % 2)]
        columns = dict(zip(("user_index", "item_index", "day"), np.array(shown, np.int32).T, strict=True))
        write_arrow_table(folder / "hard_negatives.arrow", pa.table(columns))
        return replace(job, tables={**job.tables, "hard_negatives": str(folder / "hard_negatives.arrow")})

    return {name: made(name) for name in CASES}


@pytest.fixture(scope="module")
def warm(job: FitJob, tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    """Returns a job that begins with an earlier model, two of whose embeddings have other rows today."""
    folder = tmp_path_factory.mktemp("warm")
    earlier = run(replace(job, state=str(folder / "none"), seed=5, training={**job.training, "epochs": 1}))
    (folder / ModelFile.WEIGHTS).write_bytes(earlier.files[ModelFile.WEIGHTS])
    rows = {
        "item": CarriedRows(np.array([1, 2, 5]), np.array([4, 2, 1])),
        "user_kind": CarriedRows(np.array([3]), np.array([1])),
    }
    save_carried_rows(folder / "rows.npz", rows)
    files = WarmFiles(
        "dssm_model/day", str(folder / ModelFile.WEIGHTS), earlier.files[ModelFile.TOWERS].decode(), str(folder / "rows.npz")
    )
    return replace(job, state=str(folder / "state"), warm_start=files)


@pytest.fixture(scope="module")
def shared(
    job: FitJob, jobs: dict[str, FitJob], warm: FitJob, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bytes]]:
    """Returns the files that two processes leave, by case."""
    fits = {name: [SharedFit(one)] for name, one in jobs.items()}
    fits |= {"whole": [SharedFit(job)], "sharded": [SharedFit(_with_shards(job, "through"))]}
    fits |= {"warm": [SharedFit(warm)], "warm, sharded": [SharedFit(_with_shards(warm, "through"))]}
    for name, stop in STOPPED.items():
        stored = _with_shards(job, name, checkpoint_minutes=EVERY_STEP)
        fits[name] = [SharedFit(stored, stop), SharedFit(stored)]
        whole = replace(job, state=f"{job.state}.whole.{name}", training={**job.training, "checkpoint_minutes": EVERY_STEP})
        fits[f"whole, {name}"] = [SharedFit(whole, stop), SharedFit(whole)]
    return run_shared(fits, tmp_path_factory.mktemp("shared") / "out")


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(name: str, jobs: dict[str, FitJob], shared: dict[str, dict[str, bytes]]) -> None:
    alone = run(jobs[name])
    losses = [json.loads(files[ModelFile.LOSSES]) for files in (alone.files, shared[name])]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    theirs = weights_of(shared[name])
    for tensor, weight in weights_of(alone.files).items():
        assert np.allclose(weight, theirs[tensor], atol=2e-3), tensor


@pytest.mark.parametrize(("whole", "sharded"), [("whole", "sharded"), ("warm", "warm, sharded")])
def test_sharded_tables_end_with_the_bytes_of_whole_ones(whole: str, sharded: str, shared: dict[str, dict[str, bytes]]) -> None:
    for name in (ModelFile.WEIGHTS, ModelFile.TOWERS, ModelFile.LOSSES, "validation.json"):
        assert shared[whole][name] == shared[sharded][name], name
    assert shared["warm"][ModelFile.WEIGHTS] != shared["whole"][ModelFile.WEIGHTS]


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize(("tables", "prefix"), [("sharded", ""), ("whole", "whole, ")])
def test_killed_shared_fit_resumes_and_ends_with_the_same_bytes(
    tables: str, prefix: str, name: str, shared: dict[str, dict[str, bytes]]
) -> None:
    resumed = shared[f"{prefix}{name}"]
    assert resumed[ModelFile.WEIGHTS] == shared[tables][ModelFile.WEIGHTS]
    assert json.loads(resumed[ModelFile.LOSSES]) == json.loads(shared[tables][ModelFile.LOSSES])
    report = json.loads(resumed[REPORT])
    assert report["resumed_at_step"] == STOPPED[name] - 1
