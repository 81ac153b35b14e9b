"""`dssm-assets fit --experiment`: processes that are started elsewhere fit with an experiment's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets.cli import build_parser
from dssm_assets.core.errors import ConfigError, ProvenanceError
from dssm_assets.extras.experiments.experiments import Experiment, open_experiment
from dssm_assets.steps import dssm_model
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import EVALUATION_DAY

pytestmark = needs_extras("several_processes")

EXTERNAL = {"training": {"launcher": "external", "shard_tables": True, "epochs": 2}, "model": {"dropout": 0.0}}


def test_experiment_is_fitted_with_its_own_settings(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", EXTERNAL)
    workspace_before, hot = open_workspace(loaded), Experiment("hot", {"model.temperature": 5.0})
    before = worlds.every_digest(workspace_before)
    environment = {"DSSM_CONFIG": loaded.path, "DSSM_HOME": loaded.home, "RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    for name, value in {**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))
    parsed = build_parser().parse_args(["fit", "--day", EVALUATION_DAY, "--experiment", "hot"])
    with pytest.raises(
        ConfigError, match=r"experiment hot: expected settings of .*first start the experiment's run of dssm_model"
    ):
        parsed.command(parsed)
    workspace, _ = open_experiment(workspace_before, hot, "dssm_model", EVALUATION_DAY)
    with pytest.raises(ProvenanceError, match=rf"start `dssm-assets fit --day {EVALUATION_DAY} --experiment hot` under"):
        next(dssm_model.dssm_model(workspace, [EVALUATION_DAY]))
    assert parsed.command(parsed) == 0
    workspace, _ = open_experiment(workspace_before, hot, "dssm_model", EVALUATION_DAY)
    (result,) = dssm_model.dssm_model(workspace, [EVALUATION_DAY])
    assert result.facts["configuration"]["model"]["temperature"] == 5.0
    assert workspace.tables.partitions.is_own(result.manifest)
    assert worlds.every_digest(workspace_before) == before
