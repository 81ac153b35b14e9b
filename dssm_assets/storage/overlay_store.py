"""A partition store laid over another: what is written stays above, what is not there is read from below.

An experiment works in one: its partitions lie in `<root>/experiments/<name>/<asset>/ds=YYYY-MM-DD`, everything that its
settings do not touch is the standing partition.

Belongs here: which of the two stores a partition comes from. Does not belong here: files and manifests
(`partition_store.py`) and what an experiment is (`core/experiments.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from dssm_assets.storage import layout
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore


class OverlayStore(PartitionStore):
    """The partitions of an experiment, and below them the standing ones."""

    def __init__(self, below: PartitionStore, name: str) -> None:
        """Lays the store of the experiment of that name over the standing one."""
        super().__init__(below.fs.unstrip_protocol(layout.experiment_root(below.root, name)), below.options)
        self.below, self.name = below, name
        self._own: set[str] = set()

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the experiment's partition of a day, else the standing one, None where there is neither."""
        own = super().find(asset, ds)
        if own is None:
            return self.below.find(asset, ds)
        self._own.add(_identity(own))
        return own

    def days(self, asset: str) -> list[str]:
        """Returns the days that have a partition in either store, ascending."""
        return sorted({*super().days(asset), *self.below.days(asset)})

    def path(self, manifest: Manifest, file: StoredFile) -> str:
        """Returns the path of a file, in the store that its partition was found in."""
        return super().path(manifest, file) if self.holds(manifest) else self.below.path(manifest, file)

    def holds(self, manifest: Manifest) -> bool:
        """Tells whether a partition that this store found is the experiment's own."""
        return _identity(manifest) in self._own

    def _show(self, manifest: Manifest) -> Manifest:
        self._own.add(_identity(manifest))
        return super()._show(manifest)


def experiment_names(below: PartitionStore) -> list[str]:
    """Returns the names of the experiments that have a folder beside the standing partitions, sorted."""
    folder = layout.experiments_folder(below.root)
    listed: Mapping[str, bool] = {} if below.is_local else {"refresh": True}
    try:
        entries = below.fs.ls(folder, detail=False, **listed)
    except FileNotFoundError:
        return []
    return sorted(name for entry in entries if (name := layout.experiment_of_folder(str(entry))) is not None)


def _identity(manifest: Manifest) -> str:
    return f"{manifest.key} {manifest.digest}"
