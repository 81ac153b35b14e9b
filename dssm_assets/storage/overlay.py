"""A store over a base store, for experiments. It writes its own partitions, and reads the base store's if it has none."""

from __future__ import annotations

from dssm_assets.storage import layout
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore


class OverlayStore(PartitionStore):
    """Writes its own partitions. Reads its own partition of a day if it has one, else the base store's."""

    def __init__(self, base: PartitionStore, name: str, folder: str | None = None) -> None:
        """Opens the store of experiment `name` over the base store. With `folder`, the store is in that folder instead."""
        url = base.fs.unstrip_protocol(folder or layout.experiment_root(base.root, name))
        super().__init__(url, base.options, base.grace_seconds)
        self.base, self.name, self.hidden = base, name, base.hidden
        self._own: set[str] = set()

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the experiment's partition of a day, else the base store's. None if neither exists."""
        own = super().find(asset, ds)
        if own is None:
            return self.base.find(asset, ds)
        self._own.add(_identity(own))
        return own

    def days(self, asset: str) -> list[str]:
        return sorted({*super().days(asset), *self.base.days(asset)})

    def file_path(self, manifest: Manifest, file: StoredFile) -> str:
        return super().file_path(manifest, file) if self.is_own(manifest) else self.base.file_path(manifest, file)

    def is_own(self, manifest: Manifest) -> bool:
        """Returns whether a partition from `find` or `publish` is the experiment's own."""
        return _identity(manifest) in self._own

    def _publish(self, manifest: Manifest) -> Manifest:
        self._own.add(_identity(manifest))
        return super()._publish(manifest)


def experiment_names(base: PartitionStore) -> list[str]:
    """Returns the names of the experiments that have a folder in the base store, sorted."""
    try:
        entries = base.fs.ls(layout.experiments_folder(base.root), detail=False, **({} if base.is_local else {"refresh": True}))
    except FileNotFoundError:
        return []
    return sorted(name for entry in entries if (name := layout.experiment_of_folder(str(entry))) is not None)


def _identity(manifest: Manifest) -> str:
    return f"{manifest.key} {manifest.digest}"
