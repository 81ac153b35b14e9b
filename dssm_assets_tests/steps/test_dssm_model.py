"""The step dssm_model: what is stored and reported with validation days, a prior, a warm start, a killed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import ProvenanceError
from dssm_assets.core.features.fg_tables import FEATURE_COUNTS
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.prior import Prior
from dssm_assets.steps import dssm_model, feature_config
from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY, BuiltWorld

PREVIOUS_DAY = "2024-01-11"
SEARCH: dict[str, Any] = {"model": {"prior": True}, "training": {"validation_days": 2, "epochs": 3, "weight_average": 0.9}}


def _fit_towers(workspace: Workspace, ds: str = EVALUATION_DAY) -> StepResult:
    list(feature_config.training_config(workspace, [ds]))
    (result,) = dssm_model.dssm_model(workspace, [ds])
    return result


@pytest.fixture(scope="module")
def searched(world: BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, StepResult]:
    workspace = open_workspace(world.copy(tmp_path_factory.mktemp("search") / "world", SEARCH))
    return workspace, _fit_towers(workspace)


def test_search_and_prior_are_stored(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    read = {file.name: workspace.artifacts.read_bytes(result.manifest, file.name) for file in result.manifest.files}
    files = {
        "model.bin",
        "search_model.bin",
        "towers.json",
        ModelFile.LOSSES,
        ModelFile.REPORT,
        ModelFile.VALIDATION,
        "prior.json",
    }
    assert read.keys() == files
    stored = json.loads(read[ModelFile.VALIDATION])
    rates = [score["hit_rate"] for score in stored["scores"]]
    assert len(rates) == 3
    best = max(range(3), key=lambda epoch: rates[epoch])
    prior = Prior.model_validate_json(read["prior.json"])
    assert stored["scores"][best]["prior"] == [prior.popularity, prior.recent, prior.half_life_days, prior.growth]
    # 12 users have 3 events on each of 6 days: 216 samples are 7 batches of 32, the first 4 days' 144 are 5.
    assert len(json.loads(read[ModelFile.LOSSES])) == 7 * (best + 1)
    assert len(stored["loss_by_step"]) == 5 * 3


def test_fit_follows_the_steps_of_step_config(world: BuiltWorld, tmp_path: Path) -> None:
    workspace = open_workspace(world.copy(tmp_path / "world", {"training": {"epochs": 2, "epoch_frac": 0.5}}))
    (planned,) = feature_config.step_config(workspace, [EVALUATION_DAY])
    rows = {row["feature"]: json.loads(row["feature_info"]) for row in workspace.tables.read(planned.manifest).to_pylist()}
    facts = _fit_towers(workspace).facts
    # Half of 216 samples are 4 batches of 32.
    assert rows == {"__NUM_STEPS__": {"num_steps": 8}, "__DECAY_STEPS__": {"decay_steps": 7}}
    assert facts["steps"] == facts["planned_steps"] == 8


def test_metadata_reports_the_fit(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    facts = result.facts
    assert len(facts["validation_hit_rate"]) == 3
    assert facts["best_epoch"] == facts["epochs"]
    assert ("training.epochs" in str(facts["search_borders"])) == (facts["epochs"] == 3)
    assert facts["prior"] is not None
    assert facts["samples_per_s"] > 0
    assert 0 <= facts["input_wait_frac"] < 1
    assert facts["warm_start"] is None
    assert facts["resumed_at_step"] is None
    assert facts["configuration"]["model"] == workspace.config.model.model_dump(mode="json")
    assert Training.model_validate(facts["configuration"]["training"]) == workspace.config.training
    assert result.images["loss_curve"].startswith(b"\x89PNG")


def test_figures_that_differ_from_run_to_run_are_not_stored(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    assert not list((workspace.artifacts.cache / "fit_state").rglob("*.state"))
    assert _fit_towers(workspace).manifest == result.manifest


def test_killed_run_is_resumed_and_its_state_removed(world: BuiltWorld, tmp_path: Path) -> None:
    often = {"training": {"epochs": 3, "checkpoint_minutes": 1e-9}}
    workspace = open_workspace(world.copy(tmp_path / "world", often))

    class KilledError(Exception):
        pass

    def log(text: str) -> None:
        lines.append(text)
        if "step 21/21" in text and len(lines) < 3:
            raise KilledError

    lines: list[str] = []
    workspace = Workspace(workspace.loaded, workspace.tables, workspace.artifacts, workspace.engine, log)
    with pytest.raises(KilledError):
        _fit_towers(workspace)
    result = _fit_towers(workspace)
    assert result.facts["resumed_at_step"] == 20
    assert not list((workspace.artifacts.cache / "fit_state").rglob("*.state"))
    assert any("killed fit" in line for line in lines)
    assert _fit_towers(workspace).manifest == result.manifest


@pytest.fixture(scope="module")
def warm(world: BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Returns a world that also has a model of the previous day."""
    loaded = world.copy(tmp_path_factory.mktemp("warm") / "world", {"training": {"warm_start": True}})
    worlds.run_steps(loaded, worlds.WINDOWED, [PREVIOUS_DAY])
    return open_workspace(loaded)


def test_warm_start_begins_with_the_previous_model(warm: Workspace) -> None:
    assert warm.need("dssm_model", PREVIOUS_DAY).inputs.keys() == {
        f"train_samples/{PREVIOUS_DAY}",
        f"training_config/{PREVIOUS_DAY}",
    }
    result = _fit_towers(warm)
    facts = result.facts["warm_start"]
    assert facts["from"] == f"dssm_model/{PREVIOUS_DAY}"
    # Every user and item of the tiny world has events every day, so nothing is new.
    assert facts["embedding_rows_new"] == 0
    assert facts["embedding_rows_carried"] > 20
    assert facts["dense_tensors_new"] == 0
    carried = {f"dssm_model/{PREVIOUS_DAY}", f"feature_config/{PREVIOUS_DAY}", f"feature_counts/{PREVIOUS_DAY}"}
    assert carried < result.manifest.inputs.keys()
    losses = json.loads(warm.artifacts.read_bytes(result.manifest, ModelFile.LOSSES))
    first = json.loads(warm.artifacts.read_bytes(warm.need("dssm_model", PREVIOUS_DAY), ModelFile.LOSSES))
    assert losses[0] < first[0] - 0.5


def test_warm_start_skips_models_that_learned_the_validation_days(warm: Workspace) -> None:
    loaded = worlds.write_config(warm.loaded.path.parent, {"training": {"warm_start": True, "validation_days": 2}})
    lines: list[str] = []
    assert _fit_towers(open_workspace(loaded, lines.append)).facts["warm_start"] is None
    assert any("no dssm_model up to 2024-01-10" in line for line in lines)


def test_warm_start_from_a_day_with_rewritten_counts_is_refused(warm: Workspace) -> None:
    loaded = worlds.write_config(warm.loaded.path.parent, {"training": {"warm_start": True}})
    workspace = open_workspace(loaded)
    stored = workspace.need("feature_counts", PREVIOUS_DAY)
    counts: pa.Table = workspace.tables.read(stored)
    workspace.tables.write(FEATURE_COUNTS, PREVIOUS_DAY, counts.slice(1), inputs=stored.inputs)
    with pytest.raises(ProvenanceError, match=f"train_samples/{PREVIOUS_DAY}, input feature_counts/{PREVIOUS_DAY}"):
        _fit_towers(workspace)
