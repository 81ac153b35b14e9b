"""Vector stores that had vectors of users, and that the configuration names no more."""

from __future__ import annotations

import json

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.extras.vector_stores.publish import ASSET
from dssm_assets.extras.vector_stores.store import open_configured
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.layout import lancedb_folder


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the stores of earlier configurations that got vectors of users, as their partitions tell, and an unused one of the home."""
    store, loaded = workspace.tables.partitions, workspace.loaded
    facts = [
        json.loads(workspace.artifacts.read_bytes(manifest, "store.json"))
        for manifest in store.find_days(ASSET, store.days(ASSET)).values()
    ]
    places = {one["store"] for one in facts if f"{VectorTable.USER} rows" in one}
    if store.fs.exists(folder := lancedb_folder(store.root)):  # the home may have been moved since
        places.add(f"vector store lancedb://{folder}")
    if places and loaded.config.vector_store is not None:
        places.discard(open_configured(loaded).where)
    return sorted(places)
