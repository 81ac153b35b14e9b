"""Partitions that are older than `storage.keep_days` of their group, and that nothing needs: found and removed.

Days count back from the latest stored day, not from today. A partition that was written during the grace period stays, because the run
that wrote it may go on to read it. What stays however old it is:

    logs                 tables that histories are read from across all days (`AssetRow.is_log`)
    of a bundle          partitions that a stored serving bundle was built from, so that it can be published again
    of an experiment     partitions that an experiment read
    shared files         those that the manifest of a remaining day lists

The partitions that a remaining one was built from may go before it: it can be read, but is computed again only after them
(`materialize --with-upstream` makes them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.bundles import open_bundles
from dssm_assets.storage.leftovers import Kind, Leftover, manifest_changed_at, unlisted_shared_files
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import experiment_names
from dssm_assets.storage.partitions import PartitionStore

_DAILY = "behavior"
"""The log whose latest day is that of the store."""


def remove_expired(
    workspace: Workspace, groups: Mapping[str, str], before: float, *, removes: bool = True
) -> Iterator[Leftover]:
    """Yields, and removes, the partitions that are kept no longer, and shared files that no remaining one lists.

    Args:
        workspace: the regular one of the scene.
        groups: asset -> group, of those that may expire.
        before: only what has not changed since, in unix seconds.
        removes: False only finds them.
    """
    keep_days, store = workspace.config.storage.keep_days, workspace.tables.partitions
    stored = {asset: store.days(asset) for asset, group in groups.items() if group in keep_days}
    latest = max((days[-1] for days in (*stored.values(), store.days(_DAILY)) if days), default=None)
    if latest is None or not any(stored.values()):
        return
    needed = _needed(workspace, store)
    for asset, days in stored.items():
        first = day_before(latest, keep_days[groups[asset]] - 1)
        old = [ds for ds in days if ds < first and f"{asset}/{ds}" not in needed]
        expired = [store.manifest(asset, ds) for ds in old if manifest_changed_at(store, asset, ds) < before]
        for manifest in expired:
            if removes:
                store.remove(asset, manifest.ds)
            yield Leftover(Kind.EXPIRED, manifest.key, _own_bytes(manifest))
        if any(layout.is_shared(file.path) for manifest in expired for file in manifest.files):
            remaining = sorted(set(days) - {manifest.ds for manifest in expired})
            yield from unlisted_shared_files(store, asset, remaining, before, removes=removes)


def _own_bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files if not layout.is_shared(file.path))


def _needed(workspace: Workspace, store: PartitionStore) -> set[str]:
    """Returns the keys of the partitions that stored bundles and experiments were built from."""
    bundles = open_bundles(workspace.loaded)
    pointer = bundles.pointer()
    needed: set[str] = set()
    for bundle_id in () if pointer is None else pointer.stored:
        needed |= set(bundles.manifest(bundle_id)["inputs"])
    for name in experiment_names(store):
        own = PartitionStore(store.fs.unstrip_protocol(layout.experiment_root(store.root, name)), store.options)
        for asset in own.assets():
            for ds in own.days(asset):
                needed |= set(own.manifest(asset, ds).inputs)
    return needed
