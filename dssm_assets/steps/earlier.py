"""The partitions of an asset before a day, which a day is compared with.

Belongs here: finding them. Does not belong here: windows, which must be complete (`workspace.py`).
"""

from __future__ import annotations

from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


def partitions_before(workspace: Workspace, asset: str, ds: str, count: int) -> list[Manifest]:
    """Returns the last so many stored partitions before a day, by day; fewer where fewer are stored."""
    before = [day for day in workspace.tables.partitions.days(asset) if day < ds]
    return workspace.need_all(asset, before[-count:]) if count else []
