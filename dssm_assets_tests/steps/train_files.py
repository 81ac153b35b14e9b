"""The Arrow files of train_samples, as training opens them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from dssm_assets.core.training.data import TrainData
from dssm_assets.steps.feature_config import towers_of
from dssm_assets.steps.workspace import Workspace

TRAIN_FILES = ("samples", "user_rows", "item_rows", "history", "users", "items")
"""The files without hard negatives, in their order."""


def train_tables(workspace: Workspace, ds: str) -> dict[str, pa.Table]:
    """Returns argument of `TrainData` -> table."""
    stored = workspace.need("train_samples", ds)
    return {Path(file.name).stem: workspace.artifacts.map_table(stored, file.name) for file in stored.files}


def open_train_data(workspace: Workspace, ds: str) -> TrainData:
    return TrainData(towers_of(workspace, ds).spec, **train_tables(workspace, ds))
