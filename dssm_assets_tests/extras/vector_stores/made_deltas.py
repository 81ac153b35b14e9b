"""Deltas that tests make of a published bundle."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps.workspace import Workspace
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle


def add_delta(workspace: Workspace, **changed: np.ndarray) -> str:
    """Stores and serves a delta in which some items have other vectors; returns its id."""
    bundles, plain = open_bundles(workspace.loaded), PlainBundle(workspace)
    table = plain.table("item_vectors.arrow")
    ids, vectors = table.column("item_id").to_pylist(), np.array(table.column("item_tower_emb").to_pylist(), np.float32)
    for name, vector in changed.items():
        vectors[ids.index(name)] = vector
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    body = {key: value for key, value in plain.manifest.items() if key not in ("format", "files", "was")} | {"delta": {}}
    with bundles.staging() as folder:
        with pa.ipc.new_file(str(folder / "item_vectors.arrow"), table.schema) as file:
            file.write_table(table.set_column(1, table.schema.field(1), lists))
        return bundles.publish(folder, body, 3, base=plain.bundle_id, served=plain.bundle_id).bundle_id
