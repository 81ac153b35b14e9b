"""Removing expired partitions and leftovers of a scene: on request, and once a day by the first run.

A partition has expired if it is older than `storage.keep_days` of its group and nothing needs it. Days count back from the latest
stored day, not from today. A partition that was written during the grace period stays, because the run that wrote it may go on to
read it. However old, these stay: logs from which histories are read across all days (`AssetRow.is_log`), inputs of a stored serving
bundle or of an experiment, and shared files that the manifest of a remaining day lists.

Inputs of a remaining partition may go before it: it can be read, and `materialize --with-upstream` makes its inputs again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from dssm_assets.defs.asset_table import expiring_groups
from dssm_assets.extras.retention.leftovers import (
    Kind,
    Leftover,
    changed_at,
    find_bundles,
    find_in_store,
    find_temporary,
    find_unlisted_shared,
    open_experiment_store,
)
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.bundles import open_bundles
from dssm_assets.storage.overlay import experiment_names
from dssm_assets.storage.partitions import PartitionStore

_DAILY = "behavior"
"""The log whose latest day is that of the store."""
_DUE_SECONDS: Final = 24 * 3600.0


def clean(
    workspace: Workspace, groups: Mapping[str, str], grace_hours: float | None = None, *, removes: bool = True
) -> Iterator[Leftover]:
    """Yields, and removes, expired partitions, the leftovers of a scene and the temporary folders of ended processes.

    Args:
        groups: asset -> group, of those whose partitions may expire.
        grace_hours: how long they must not have changed (default: storage.grace_hours).
        removes: False only lists them.
    """
    loaded, store = workspace.loaded, workspace.tables.partitions
    before = time.time() - (loaded.config.storage.grace_hours if grace_hours is None else grace_hours) * 3600
    for leftover in itertools.chain(
        find_expired(workspace, groups, before),
        find_temporary([loaded.scratch], workspace.artifacts.cache, before),
        find_in_store(store, before),
        find_bundles(open_bundles(loaded), before),
    ):
        if removes:
            leftover.remove()
        yield leftover


def on_run_start(workspace: Workspace) -> None:
    """Removes expired partitions and leftovers unless that was done in the last 24 hours; logs them. Never raises: a run goes on without."""
    store = workspace.tables.partitions
    path = layout.cleaned_path(store.root)
    try:
        if store.fs.exists(path) and time.time() - store.fs.modified(path).timestamp() < _DUE_SECONDS:
            return
        store.fs.makedirs(store.root, exist_ok=True)
        store.fs.pipe_file(path, b"")
        removed = list(clean(workspace, expiring_groups()))
    except Exception as error:
        workspace.log(f"leftovers were not removed: {type(error).__name__}: {error}")
        return
    if removed:
        workspace.log(f"removed leftovers: {len(removed)}, {sum(leftover.bytes for leftover in removed) / (1 << 20):.1f} MiB")


def find_expired(workspace: Workspace, groups: Mapping[str, str], before: float) -> Iterator[Leftover]:
    """Yields the partitions that are too old, and shared files that no remaining one lists.

    Args:
        groups: asset -> group, of those that may expire.
        before: only what has not changed since, in unix seconds.
    """
    keep_days, store = workspace.config.storage.keep_days, workspace.tables.partitions
    stored = {asset: store.days(asset) for asset, group in groups.items() if group in keep_days}
    latest = max((days[-1] for days in (*stored.values(), store.days(_DAILY)) if days), default=None)
    if latest is None or not any(stored.values()):
        return
    needed = _find_needed(workspace, store)
    for asset, days in stored.items():
        first = day_before(latest, keep_days[groups[asset]] - 1)
        expired = []
        for ds in days:
            path = layout.manifest_path(store.root, asset, ds)
            if ds < first and f"{asset}/{ds}" not in needed and changed_at(store.fs.info(path)) < before:
                expired.append(store.manifest(asset, ds))
        for manifest in expired:
            size = sum(file.bytes for file in manifest.files if not layout.is_shared(file.path))
            yield Leftover(Kind.EXPIRED, manifest.key, size, partial(store.remove, asset, manifest.ds))
        if any(layout.is_shared(file.path) for manifest in expired for file in manifest.files):
            remaining = sorted(set(days) - {manifest.ds for manifest in expired})
            yield from find_unlisted_shared(store, asset, remaining, before)


def _find_needed(workspace: Workspace, store: PartitionStore) -> set[str]:
    """Returns the keys of the partitions that stored bundles and experiments were built from."""
    bundles = open_bundles(workspace.loaded)
    pointer = bundles.pointer()
    needed: set[str] = set()
    for bundle_id in () if pointer is None else pointer.stored:
        needed |= set(bundles.manifest(bundle_id)["inputs"])
    for name in experiment_names(store):
        own = open_experiment_store(store, name)
        for asset in own.assets():
            for ds in own.days(asset):
                needed |= set(own.manifest(asset, ds).inputs)
    return needed
