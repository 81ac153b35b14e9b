"""Removing leftovers and expired partitions of a scene: on request, and once a day by the first run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

from dssm_assets.steps.retention import remove_expired
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage import layout
from dssm_assets.storage.bundles import open_bundles
from dssm_assets.storage.leftovers import Leftover, clean_bundles, clean_store, clean_temporary

_DUE_SECONDS: Final = 24 * 3600.0
_MIB: Final = 1 << 20


def clean(
    workspace: Workspace, groups: Mapping[str, str], grace_hours: float | None = None, *, removes: bool = True
) -> Iterator[Leftover]:
    """Yields, and removes, expired partitions, the leftovers of a scene and the temporary folders of ended processes.

    Args:
        workspace: the regular one of the scene.
        groups: asset -> group, of those whose partitions may expire.
        grace_hours: how long they must not have changed (default: storage.grace_hours).
        removes: False only finds them.
    """
    loaded, store = workspace.loaded, workspace.tables.partitions
    before = time.time() - (loaded.config.storage.grace_hours if grace_hours is None else grace_hours) * 3600
    yield from remove_expired(workspace, groups, before, removes=removes)
    yield from clean_temporary([loaded.scratch], workspace.artifacts.cache, before, removes=removes)
    yield from clean_store(store, before, removes=removes)
    yield from clean_bundles(open_bundles(loaded), before, removes=removes)


def clean_if_due(workspace: Workspace, groups: Mapping[str, str]) -> None:
    """Removes expired partitions and leftovers unless that was done in the last 24 hours; logs what was removed. Never raises: a run goes on without."""
    store = workspace.tables.partitions
    path = layout.cleaned_path(store.root)
    try:
        if store.fs.exists(path) and time.time() - store.fs.modified(path).timestamp() < _DUE_SECONDS:
            return
        store.fs.makedirs(store.root, exist_ok=True)
        store.fs.pipe_file(path, b"")
        removed = list(clean(workspace, groups))
    except Exception as error:
        workspace.log(f"leftovers were not removed: {type(error).__name__}: {error}")
        return
    if removed:
        workspace.log(f"removed leftovers: {len(removed)}, {sum(found.bytes for found in removed) / _MIB:.1f} MiB")
