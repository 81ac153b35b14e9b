"""Vector stores that had vectors of users, and that the configuration names no more."""

from __future__ import annotations

import json

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.extras.vector_stores.publish import ASSET
from dssm_assets.extras.vector_stores.store import open_configured
from dssm_assets.steps.workspace import Workspace


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the stores of earlier configurations that got vectors of users, as their partitions tell."""
    store = workspace.tables.partitions
    facts = [
        json.loads(workspace.artifacts.read_bytes(manifest, "store.json"))
        for manifest in store.find_days(ASSET, store.days(ASSET)).values()
    ]
    places = {one["store"] for one in facts if f"{VectorTable.USER} rows" in one}
    if places and workspace.config.vector_store is not None:
        places.discard(open_configured(workspace.loaded).where)
    return sorted(places)
