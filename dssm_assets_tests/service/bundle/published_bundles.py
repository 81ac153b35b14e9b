"""Publishing the bundle of the tiny world, and reading it with plain libraries; shared by the tests of serving_bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.bundle.serving_bundle import serving_bundle
from dssm_assets.steps.workspace import StepResult, Workspace
from dssm_assets_tests.worlds import EVALUATION_DAY

VECTORS = {"user": "user_tower_emb", "item": "item_tower_emb"}


def publish_bundle(workspace: Workspace) -> StepResult:
    (result,) = serving_bundle(workspace, [EVALUATION_DAY])
    return result


class PlainBundle:
    """The current bundle of a workspace, read with plain libraries."""

    def __init__(self, workspace: Workspace) -> None:
        store = open_bundles(workspace.loaded)
        pointer = store.pointer()
        assert pointer is not None
        self.bundle_id = pointer.bundle_id
        store.fetch(pointer.bundle_id)
        self.manifest = store.manifest(pointer.bundle_id)
        self.folder = store.folder(pointer.bundle_id)

    def table(self, name: str) -> pa.Table:
        path = f"{self.folder}/{name}"
        return pq.read_table(path) if name.endswith(".parquet") else pa.ipc.open_file(path).read_all()

    def json(self, name: str) -> Any:
        return json.loads(Path(self.folder, name).read_text(encoding="utf-8"))

    def vectors(self, side: str) -> dict[str, list[float]]:
        table = self.table(f"{side}_vectors.arrow")
        return dict(zip(table.column(f"{side}_id").to_pylist(), table.column(VECTORS[side]).to_pylist(), strict=True))
