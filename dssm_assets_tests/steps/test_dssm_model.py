"""The step of the fitted towers: what is stored and told with validation days, a prior, an earlier model, a killed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import ProvenanceError
from dssm_assets.core.features.fg_tables import FEATURE_COUNTS, STEP_CONFIG
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.statistics.feature_config import CONFIG
from dssm_assets.steps import dssm_model, feature_config
from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY, BuiltWorld

EVE = "2024-01-11"
SEARCH: dict[str, Any] = {"model": {"prior": True}, "training": {"validation_days": 2, "epochs": 3, "weight_average": 0.9}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> BuiltWorld:
    return worlds.built_world(tmp_path_factory)


def _made(workspace: Workspace, ds: str = EVALUATION_DAY) -> StepResult:
    list(feature_config.training_config(workspace, [ds]))
    (result,) = dssm_model.dssm_model(workspace, [ds])
    return result


@pytest.fixture(scope="module")
def searched(world: BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, StepResult]:
    workspace = open_workspace(world.copy(tmp_path_factory.mktemp("search") / "world", SEARCH))
    return workspace, _made(workspace)


def test_the_search_and_its_prior_are_stored(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    read = {file.name: workspace.artifacts.read_bytes(result.manifest, file.name) for file in result.manifest.files}
    assert read.keys() == {"model.bin", "towers.json", ModelFile.LOSSES, ModelFile.REPORT, ModelFile.VALIDATION, "prior.json"}
    told = json.loads(read[ModelFile.VALIDATION])
    rates = [score["hit_rate"] for score in told["scores"]]
    assert len(rates) == 3
    best = max(range(3), key=lambda epoch: rates[epoch])
    prior = Prior.from_json(read["prior.json"])
    assert told["scores"][best]["prior"] == [prior.popularity, prior.recent, prior.half_life_days]
    # 12 users take 3 items on 6 days: 216 samples are 7 batches of 32, the first 4 days' 144 are 5.
    assert len(json.loads(read[ModelFile.LOSSES])) == 7 * (best + 1)
    assert len(told["loss_by_step"]) == 5 * 3


def test_the_fit_takes_the_steps_that_step_config_plans_and_warms_up_as_long(world: BuiltWorld, tmp_path: Path) -> None:
    workspace = open_workspace(world.copy(tmp_path / "world", {"training": {"epochs": 2, "epoch_frac": 0.5}}))
    (planned,) = feature_config.step_config(workspace, [EVALUATION_DAY])
    rows = {row["feature"]: json.loads(row["feature_info"]) for row in workspace.tables.read(planned.manifest).to_pylist()}
    facts = _made(workspace).facts
    # Half of 216 samples are 4 batches of 32.
    assert rows == {"__NUM_STEPS__": {"num_steps": 8}, "__DECAY_STEPS__": {"decay_steps": 7}}
    assert facts["steps"] == facts["planned_steps"] == 8
    losses = workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), ModelFile.LOSSES)
    table = workspace.tables.read(planned.manifest).to_pylist()
    table[1]["feature_info"] = '{"decay_steps": 2}'
    workspace.write_table(STEP_CONFIG, EVALUATION_DAY, pa.Table.from_pylist(table, schema=CONFIG), [])
    # What a version wrote in which decay_steps were those of an epoch would be taken for 6 steps of warm-up of 8.
    with pytest.raises(ProvenanceError, match=r"steps: expected 1 steps of warm-up .* got 6: decay_steps 2.*step_config"):
        _made(workspace)
    assert workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), ModelFile.LOSSES) == losses


def test_dagster_is_told_how_it_went(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    facts = result.facts
    assert len(facts["validation_hit_rate"]) == 3
    assert facts["best_epoch"] == facts["epochs"]
    assert facts["prior"] is not None
    assert facts["samples_per_s"] > 0
    assert 0 <= facts["input_wait_frac"] < 1
    assert facts["peak_bytes"] > 1e7
    assert facts["peak_bytes_of"].startswith("the run's process, its largest resident size since it started")
    assert facts["embedding_norms"].keys() >= {"item", "category"}
    assert facts["warm_start"] is None
    assert facts["resumed_at_step"] is None
    assert isinstance(facts["collision_frac"], dict)
    assert facts["configuration"]["model"] == workspace.config.model.model_dump(mode="json")
    assert Training.model_validate(facts["configuration"]["training"]) == workspace.config.training
    assert result.images["loss_curve"].startswith(b"\x89PNG")


def test_what_differs_from_run_to_run_is_not_stored(searched: tuple[Workspace, StepResult]) -> None:
    workspace, result = searched
    assert not list((workspace.artifacts.cache / "fit_state").rglob("*.state"))
    assert _made(workspace).manifest == result.manifest


def test_a_killed_run_is_taken_up_and_its_state_removed(world: BuiltWorld, tmp_path: Path) -> None:
    often = {"training": {"epochs": 3, "checkpoint_minutes": 1e-9}}
    workspace = open_workspace(world.copy(tmp_path / "world", often))

    class EndedError(Exception):
        pass

    def log(text: str) -> None:
        lines.append(text)
        if "step 21/21" in text and len(lines) < 3:
            raise EndedError

    lines: list[str] = []
    workspace = Workspace(workspace.loaded, workspace.tables, workspace.artifacts, workspace.engine, log)
    with pytest.raises(EndedError):
        _made(workspace)
    result = _made(workspace)
    assert result.facts["resumed_at_step"] == 20
    assert not list((workspace.artifacts.cache / "fit_state").rglob("*.state"))
    assert any("killed fit" in line for line in lines)
    assert _made(workspace).manifest == result.manifest


@pytest.fixture(scope="module")
def warm(world: BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A world that has a model of the eve too."""
    loaded = world.copy(tmp_path_factory.mktemp("warm") / "world", {"training": {"warm_start": True}})
    worlds.materialize(loaded, worlds.WINDOWED, [EVE])
    return open_workspace(loaded)


def test_a_partition_begins_as_the_one_before(warm: Workspace) -> None:
    assert warm.need("dssm_model", EVE).inputs.keys() == {f"train_samples/{EVE}", f"training_config/{EVE}"}
    result = _made(warm)
    told = result.facts["warm_start"]
    assert told["from"] == f"dssm_model/{EVE}"
    # Every item and user of the tiny world acts every day, so nothing is new.
    assert told["embedding_rows_new"] == 0
    assert told["embedding_rows_carried"] > 20
    assert told["dense_tensors_new"] == 0
    carried = {f"dssm_model/{EVE}", f"feature_config/{EVE}", f"feature_counts/{EVE}"}
    assert carried < result.manifest.inputs.keys()
    losses = json.loads(warm.artifacts.read_bytes(result.manifest, ModelFile.LOSSES))
    first = json.loads(warm.artifacts.read_bytes(warm.need("dssm_model", EVE), ModelFile.LOSSES))
    assert losses[0] < first[0] - 0.5


def test_a_model_that_learned_the_validation_days_is_not_begun_with(warm: Workspace) -> None:
    loaded = worlds.write_config(warm.loaded.path.parent, {"training": {"warm_start": True, "validation_days": 2}})
    lines: list[str] = []
    assert _made(open_workspace(loaded, lines.append)).facts["warm_start"] is None
    assert any("no dssm_model up to 2024-01-10" in line for line in lines)


def test_an_earlier_day_whose_counts_were_rewritten_is_named(warm: Workspace) -> None:
    loaded = worlds.write_config(warm.loaded.path.parent, {"training": {"warm_start": True}})
    workspace = open_workspace(loaded)
    stored = workspace.need("feature_counts", EVE)
    counts: pa.Table = workspace.tables.read(stored)
    workspace.tables.write(FEATURE_COUNTS, EVE, counts.slice(1), inputs=stored.inputs)
    with pytest.raises(ProvenanceError, match=f"train_samples/{EVE}, input feature_counts/{EVE}"):
        _made(workspace)
