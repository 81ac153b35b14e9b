"""`dssm-assets fit`: two processes under torchrun publish a day's model, which a run of the asset then uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.cli import build_parser
from dssm_assets.core.config.training import Launcher
from dssm_assets.core.errors import InputError, ProvenanceError
from dssm_assets.core.file_names import ModelFile
from dssm_assets.steps import dssm_model, feature_config
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

EXTERNAL: dict[str, Any] = {"training": {"launcher": "external", "shard_tables": True, "epochs": 2}, "model": {"dropout": 0.0}}
COMMAND = "import sys; from dssm_assets.cli import main; sys.exit(main())"
ARGUMENTS = ["--no-python", sys.executable, "-c", COMMAND, "fit", "--day", EVALUATION_DAY]


def _fitted(workspace: Workspace) -> Any:
    list(feature_config.training_config(workspace, [EVALUATION_DAY]))
    (result,) = dssm_model.dssm_model(workspace, [EVALUATION_DAY])
    return result


def _losses(workspace: Workspace) -> list[float]:
    return list(json.loads(workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), ModelFile.LOSSES)))


@pytest.mark.heavy
def test_asset_uses_the_model_fitted_under_torchrun(world: worlds.BuiltWorld, tmp_path: Path) -> None:
    loaded = world.copy(tmp_path / "world", EXTERNAL)
    workspace = open_workspace(loaded)
    _fitted(worlds.changed(workspace, "training", launcher=Launcher.IN_PROCESS, shard_tables=False))
    alone = _losses(workspace)
    with pytest.raises(ProvenanceError, match=r"launcher external: expected a model fitted with these settings"):
        _fitted(workspace)
    assert loaded.path is not None
    environment = {**os.environ, "DSSM_CONFIG": str(loaded.path), "DSSM_HOME": str(loaded.home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *ARGUMENTS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert f"published dssm_model/{EVALUATION_DAY}, fitted by 2 processes" in ended.stdout
    published = workspace.need("dssm_model", EVALUATION_DAY)
    result = _fitted(workspace)
    assert result.manifest == published
    assert result.facts["configuration"]["training"]["shard_tables"] is True
    assert result.images["loss_curve"].startswith(b"\x89PNG")
    assert _losses(workspace) == pytest.approx(alone, abs=1e-3)
    assert not list((workspace.artifacts.cache / "fit_state").rglob("*.state*"))
    with pytest.raises(ProvenanceError, match="one fitted with other settings or inputs"):
        _fitted(worlds.changed(workspace, "training", epochs=3))


def test_without_torchrun_the_error_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    parsed = build_parser().parse_args(["fit", "--day", "2026-02-15"])
    with pytest.raises(InputError, match=r"no LOCAL_RANK, RANK, WORLD_SIZE.*torchrun --nproc-per-node N"):
        parsed.command(parsed)
