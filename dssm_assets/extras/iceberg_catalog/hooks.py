"""Updates the catalog when a run stores partitions and when a cleanup removes files. Does nothing without `storage.iceberg`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

from dssm_assets.core.asset_settings import READS
from dssm_assets.core.errors import ConfigError, Fault, SchemaError, StorageError
from dssm_assets.storage import layout

if TYPE_CHECKING:
    from dssm_assets.defs.asset_run import AssetRun
    from dssm_assets.steps.workspace import StepResult, Workspace


def list_chosen(workspace: Workspace) -> Sequence[str]:
    """Returns the names of the tables to register, none without the key `storage.iceberg`.

    Raises:
        ConfigError: pyiceberg is not installed, or a chosen asset does not exist.
    """
    chosen, faults = workspace.config.storage.iceberg, []
    if chosen is None:
        return ()
    if find_spec("pyiceberg") is None:
        remedy = "pip install 'dssm-assets[iceberg]', or remove the key"
        faults.append(Fault("key storage.iceberg", "the package pyiceberg", "not installed", remedy))
    if unknown := sorted(set(chosen.tables) - set(READS)):
        known = ", ".join(READS)
        faults.append(Fault("key storage.iceberg.tables", f"some of: {known}", ", ".join(unknown), "correct the names"))
    ConfigError.raise_if(faults)
    return chosen.tables


def find_moved(workspace: Workspace) -> list[Fault]:
    """Returns a fault if the home was moved or copied. Its catalog holds absolute paths, so it would write to the old place."""
    file, store, chosen = (
        workspace.loaded.home / layout.ICEBERG_CATALOG,
        workspace.tables.partitions,
        workspace.config.storage.iceberg,
    )
    if chosen is None or chosen.catalog is not None or not file.exists():
        return []
    query = "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ?"  # the table of Iceberg's JDBC catalog
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as db:
            places = [str(place).rpartition("://")[2] for (place,) in db.execute(query, (workspace.config.name,))]
    except sqlite3.Error:  # pyiceberg creates the missing tables, or reports the fault
        return []
    root, found = store.root.rstrip("/"), places
    if store.is_local:
        root, found = os.path.realpath(root), [os.path.realpath(place) for place in places]
    wrong = sorted(place for place in found if not place.startswith(f"{root}/"))
    if not wrong:
        return []
    remedy = f"remove {file} (its snapshots are lost, the stored days stay), then run dssm-assets catalog: it registers all days again"
    expected = f"metadata of its tables in {root}, as in a home that was not moved or copied"
    return [Fault(f"key storage.iceberg, catalog {file}", expected, wrong[0], remedy)]


def on_run_start(workspace: Workspace) -> None:
    """Checks the key `storage.iceberg` before the run computes. If the home was moved, logs that the run registers nothing."""
    list_chosen(workspace)
    for fault in find_moved(workspace):
        workspace.log(f"nothing is registered in the catalog: {fault}")


def on_materialized(_context: object, run: AssetRun, workspace: Workspace, results: Sequence[StepResult]) -> None:
    """Registers the days that a regular run stored, in one transaction.

    If the catalog cannot be used, the run logs that and goes on. A later cleanup registers the days.

    Raises:
        SchemaError: the catalog cannot hold the table.
    """
    if run.is_regular and results and (asset := results[0].manifest.asset) in list_chosen(workspace):
        if find_moved(workspace):  # on_run_start has logged it
            return
        from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables

        try:
            PublishedTables(workspace).sync(asset, [result.manifest.ds for result in results])
        except StorageError as error:
            workspace.log(f"stored, but not registered in the catalog: {error}")


def on_cleaned(workspace: Workspace, before: float, *, removes: bool) -> set[str]:
    """Expires snapshots replaced before a unix time and registers all days. Returns the files that snapshots still list.

    An old snapshot may list the files of a removed day. They stay until a later cleanup expires that snapshot. If the home
    was moved or copied, the set is empty, because its catalog lists no files in the new place.
    """
    chosen = list_chosen(workspace)
    if not chosen or find_moved(workspace):
        return set()
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables

    published = PublishedTables(workspace)
    for asset in chosen if removes else ():
        published.expire(asset, before)
        try:
            published.sync(asset)
        except SchemaError as error:  # runs of this asset fail; a cleanup goes on with the others
            workspace.log(str(error))
    # Also the files of tables that are no longer chosen.
    return set().union(*map(published.find_listed, workspace.tables.partitions.assets()))


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the tables in the home's catalog that no cleanup updates. Their metadata still hold the smallest and largest ids."""
    database, chosen = workspace.loaded.home / layout.ICEBERG_CATALOG, workspace.config.storage.iceberg
    if not database.exists():
        return []
    where = f"Iceberg catalog {database}"
    if chosen is None or chosen.catalog is not None or find_moved(workspace):
        return [where]
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables

    published, synced = PublishedTables(workspace), {(workspace.config.name, asset) for asset in chosen.tables}
    with published.open_catalog() as catalog:
        stored = [name for space in catalog.list_namespaces() for name in catalog.list_tables(space)]
    return [f"{where}, table {'.'.join(name)}" for name in stored if name not in synced]
