"""When the catalog is brought up to date: after an asset's partitions are stored, and by a cleanup. Nothing happens without `storage.iceberg`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dssm_assets.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    from dssm_assets.defs.asset_run import AssetRun
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables
    from dssm_assets.steps.workspace import StepResult, Workspace
    from dssm_assets.storage.config_file import LoadedConfig


def on_run_start(workspace: Workspace) -> None:
    """Checks what the catalog needs, before a run computes for hours.

    Raises:
        ConfigError: pyiceberg is not installed, or there is no asset of a chosen name.
    """
    chosen = workspace.config.storage.iceberg
    if chosen is None:
        return
    from dssm_assets.core.asset_settings import READS

    faults = []
    if find_spec("pyiceberg") is None:
        remedy = "pip install 'dssm-assets[iceberg]', or remove the key"
        faults.append(Fault("key storage.iceberg", "the package pyiceberg", "not installed", remedy))
    if unknown := sorted(set(chosen.tables) - set(READS)):
        known = ", ".join(READS)
        faults.append(Fault("key storage.iceberg.tables", f"some of: {known}", ", ".join(unknown), "correct the names"))
    ConfigError.raise_if(faults)


def on_materialized(_context: object, run: AssetRun, workspace: Workspace, results: Sequence[StepResult]) -> None:
    """Registers the days that a regular run has stored, in one transaction; errors as of `PublishedTables`."""
    chosen = workspace.config.storage.iceberg
    if chosen is not None and run.is_regular and results and results[0].manifest.asset in chosen.tables:
        _open(workspace).sync(results[0].manifest.asset, [result.manifest.ds for result in results])


def on_cleaned(workspace: Workspace, before: float) -> None:
    """Expires snapshots that were replaced before a unix time; then takes removed days out, and what killed runs did not register in.

    A day that is taken out is in the snapshot before, so its files stay until another cleanup expires that.
    """
    chosen = workspace.config.storage.iceberg
    if chosen is None:
        return
    on_run_start(workspace)
    for asset in chosen.tables:
        _open(workspace).expire(asset, before)
        _open(workspace).sync(asset)


def find_listed(loaded: LoadedConfig, asset: str) -> Collection[str]:
    """Returns the paths of the files of an asset that a snapshot in the catalog lists; for `PartitionStore.find_listed`."""
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables
    from dssm_assets.storage.partitions import PartitionStore

    return PublishedTables(loaded, PartitionStore(loaded.root, loaded.config.storage.options)).find_listed(asset)


def _open(workspace: Workspace) -> PublishedTables:
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables

    return PublishedTables(workspace.loaded, workspace.tables.partitions, workspace.log)
