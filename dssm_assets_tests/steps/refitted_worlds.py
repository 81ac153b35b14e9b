"""The tiny world fitted again with other settings, from configuration to bundle, for tests of options that reach that far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from dssm_assets.service.bundle.serving_bundle import serving_bundle
from dssm_assets.steps.dssm_model import dssm_model
from dssm_assets.steps.evaluation import hit_rate_detail, total_hit_rate
from dssm_assets.steps.feature_config import training_config
from dssm_assets.steps.scoring import hit_counts
from dssm_assets.steps.training import train_samples
from dssm_assets.steps.vectors import item_vectors, user_vectors
from dssm_assets.steps.workspace import Check, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

STEPS: Final = (
    training_config,
    train_samples,
    dssm_model,
    item_vectors,
    user_vectors,
    hit_counts,
    hit_rate_detail,
    total_hit_rate,
    serving_bundle,
)
Checks = dict[str, dict[str, Check]]


def refit(factory: pytest.TempPathFactory, folder: Path, changes: Mapping[str, Any]) -> tuple[Workspace, Checks]:
    workspace = open_workspace(worlds.built_world(factory).copy(folder, changes))
    checks = {}
    for step in STEPS:
        (result,) = step(workspace, [EVALUATION_DAY])
        checks[step.__name__] = {check.name: check for check in result.checks}
    return workspace, checks


def vectors_of(workspace: Workspace, side: str) -> dict[Any, npt.NDArray[np.float32]]:
    """Returns id -> stored vector of users or items."""
    table = workspace.tables.read(workspace.need(f"{side}_vectors", EVALUATION_DAY))
    return dict(zip(table.column(0).to_pylist(), np.array(table.column(1).to_pylist(), np.float32), strict=True))
