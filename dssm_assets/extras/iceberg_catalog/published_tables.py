"""Registers the parquet files of stored tables in an Iceberg catalog, at the paths where they are. No byte is copied.

The catalog adds a column `ds`, the day, as an identity partition. The files do not have this column. Readers take its value
from the catalog, by the rules of column projection in Iceberg's specification.

The manifests decide which files belong to a table. `sync` makes the catalog equal to them, also after a killed run or a
commit that lost against another.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg import exceptions as errors
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import pyarrow as iceberg_arrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table, Transaction
from pyiceberg.typedef import Record
from sqlalchemy.exc import IntegrityError

from dssm_assets.core.days import name_ranges
from dssm_assets.core.errors import DssmError, Fault, SchemaError, StorageError
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage import layout
from dssm_assets.storage.locations import PYICEBERG_S3_OPTIONS, rename_s3_options
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.sources.table_source import hide_secrets

DAY: Final = "ds"
_PROPERTIES: Final = {
    "gc.enabled": "false",  # no other engine may delete our files
    "commit.retry.num-retries": "0",  # the library's retry does not look again, so it could add a file twice
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
_WRONG_TYPES: Final = (TypeError, ValueError, errors.ValidationError, iceberg_arrow.UnsupportedPyArrowTypeException)
_OVERTAKEN: Final = (errors.CommitFailedException, errors.TableAlreadyExistsError, errors.ValidationException, IntegrityError)
_TRIES: Final = 100
"""At most so many commits are tried while other writers commit first."""
_LOOKS: Final = 3
"""At most so many tries if the catalog answers with another error."""
_WAIT_SECONDS: Final = 0.02
"""Longest pause before the second try, in seconds. Later pauses are up to 32 times as long."""
_Result = TypeVar("_Result")


class PublishedTables:
    """The tables of one scene in the Iceberg catalog. Their namespace is the scene's name.

    The methods raise a StorageError if the catalog cannot be used, and a SchemaError if Iceberg cannot hold a table.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.loaded, self.store, self.log = workspace.loaded, workspace.tables.partitions, workspace.log

    def open_catalog(self) -> Catalog:
        """Returns the catalog of `storage.iceberg.catalog`, by default the SQLite file in the home."""
        chosen, properties = self.loaded.config.storage.iceberg, dict[str, Any]()
        if not self.store.is_local:  # fsspec, as in the store: it reads the same environment variables
            options = rename_s3_options(self.store.options, PYICEBERG_S3_OPTIONS).items()
            properties = {name: value for name, value in options if name in PYICEBERG_S3_OPTIONS}
            properties["py-io-impl"] = "pyiceberg.io.fsspec.FsspecFileIO"
        if chosen is not None and chosen.catalog is not None:
            return load_catalog(chosen.catalog, **properties)
        warehouse = self._url(layout.inside(self.store.root, layout.ICEBERG))
        self.loaded.home.mkdir(parents=True, exist_ok=True)
        return SqlCatalog(
            "dssm", uri=f"sqlite:///{self.loaded.home}/{layout.ICEBERG_CATALOG}", warehouse=warehouse, **properties
        )

    def sync(self, asset: str, days: Sequence[str] | None = None) -> None:
        """Makes the catalog list exactly the stored files of some days (None: all days), in one transaction."""
        self._try(asset, lambda catalog, table: self._sync(catalog, table, asset, days))

    def expire(self, asset: str, before: float) -> None:
        """Removes snapshots replaced before a unix time, and their metadata files.

        The newest snapshot also lists the files it removed, with their smallest and largest values. So an empty one is added.
        """

        def expire(_: Catalog, table: Table | None) -> None:
            if table and (kept := table.snapshot_as_of_timestamp(round(before * 1000))):
                needed, oldest = _metadata_files(table), dt.datetime.fromtimestamp(kept.timestamp_ms / 1000, dt.UTC)
                table.maintenance.expire_snapshots().older_than(oldest).commit()
                for path in needed - _metadata_files(table.refresh()):
                    table.io.delete(path)
                is_current = table.metadata.current_snapshot_id == kept.snapshot_id
                if is_current and not all(
                    one.has_added_files() or one.has_existing_files() for one in kept.manifests(table.io)
                ):
                    with table.transaction() as change, change.update_snapshot().fast_append():
                        pass

        self._try(asset, expire)

    def find_listed(self, asset: str) -> set[str]:
        """Returns the paths, in the store's filesystem, of the files that any snapshot of a table lists.

        It reads all namespaces of the home's own catalog, because a component may have registered the scene under another name.
        """
        chosen, own = self.loaded.config.storage.iceberg, (self.loaded.config.name,)
        is_ours = chosen is None or chosen.catalog is None

        def find(catalog: Catalog, _: Table | None) -> set[str]:
            named = [(*space, asset) for space in (catalog.list_namespaces() if is_ours else [own])]
            return set().union(*(_list_files(catalog.load_table(each)) for each in named if catalog.table_exists(each)))

        return {path.rpartition("://")[2] for path in self._try(asset, find)}

    def find_left_out(self, chosen: Sequence[str]) -> dict[str, list[str]]:
        """Returns reason -> the stored assets, or the empty days of chosen assets, that are not registered."""
        left_out: dict[str, list[str]] = {}
        for asset in self.store.assets():
            if not (days := self.store.days(asset)):
                continue
            if asset in chosen:
                empty = [
                    ds for ds, manifest in self.store.find_days(asset, days).items() if manifest.is_table and not manifest.rows
                ]
                if empty:
                    left_out.setdefault("no rows", []).append(f"{asset} of {name_ranges(empty)}")
            elif reason := _unfit(self.store.need(asset, days[-1])):
                left_out.setdefault(reason, []).append(asset)
            else:
                left_out.setdefault("storage.iceberg.tables does not name them", []).append(asset)
        return left_out

    def _try(self, asset: str, change: Callable[[Catalog, Table | None], _Result]) -> _Result:
        attempt = 0
        while True:
            attempt += 1
            try:
                with self.open_catalog() as catalog:
                    table = None
                    with suppress(errors.NoSuchTableError):
                        table = catalog.load_table((self.loaded.config.name, asset))
                    return change(catalog, table)
            except DssmError:
                raise
            except Exception as error:
                if attempt >= (_TRIES if isinstance(error, _OVERTAKEN) else _LOOKS):
                    got = f"{type(error).__name__}: {hide_secrets(str(error), ())}"
                    expected = "an Iceberg catalog that takes its days"
                    remedy = "correct its configuration or start it, then run dssm-assets catalog; the partitions are stored"
                    raise StorageError(str(Fault(f"key storage.iceberg, table {asset}", expected, got, remedy))) from error
            time.sleep(random.uniform(0.0, _WAIT_SECONDS * 2 ** min(attempt, 5)))

    def _url(self, path: str) -> str:
        return str(self.store.fs.unstrip_protocol(path))  # also for local files: some readers do not accept bare paths

    def _sync(self, catalog: Catalog, table: Table | None, asset: str, days: Sequence[str] | None) -> None:
        # Read after the table: if the table changes in between, the commit fails, and the next try reads newer manifests.
        manifests = self.store.find_days(asset, self.store.days(asset) if days is None else days)
        files = {
            self._url(self.store.file_path(manifest, file)): (manifest, file)
            for manifest in manifests.values()
            for file in manifest.files
            if file.rows or not manifest.columns  # an empty file has no statistics
        }
        listed: dict[str, DataFile] = {}
        if table is not None:
            scan = table.scan() if days is None else table.scan(f"{DAY} in ({', '.join(map(repr, days))})")
            listed = {task.file.file_path: task.file for task in scan.plan_files()}
        gone = [file for path, file in listed.items() if path not in files]
        footers = {path: self._read_footer(*files[path]) for path in sorted(files.keys() - listed.keys())}
        if gone or footers:
            change = self._begin(catalog, asset, table, [_schema(files[path][0], footers[path]) for path in footers])
            update = change.update_snapshot()
            with update.overwrite() if gone else update.merge_append() as snapshot:
                for file in gone:
                    snapshot.delete_data_file(file)
                for path, footer in footers.items():
                    snapshot.append_data_file(_data_file(change, path, *files[path], footer))
            table = change.commit_transaction()
        added, folder = len(footers), "no table yet" if table is None else table.location()
        self.log(f"Iceberg table {self.loaded.config.name}.{asset}: {added} files registered, {len(gone)} taken out; {folder}")

    def _read_footer(self, manifest: Manifest, file: StoredFile) -> pq.FileMetaData:
        if reason := _unfit(manifest):
            expected, got = "a table of parquet files of one day each", f"the file {file.path} ({reason})"
            raise SchemaError(Fault(f"key storage.iceberg.tables, {manifest.asset}", expected, got, "remove it from the list"))
        with self.store.filesystem_for([manifest]).open(self.store.file_path(manifest, file), "rb") as handle:
            return pq.read_metadata(handle)

    def _begin(self, catalog: Catalog, asset: str, table: Table | None, schemas: Sequence[pa.Schema]) -> Transaction:
        try:
            change = self._create(catalog, asset, schemas[0]) if table is None else table.transaction()
            for schema in dict.fromkeys(schemas):
                with change.update_schema() as columns:
                    columns.union_by_name(schema)
            return change
        except _WRONG_TYPES as error:
            expected = "columns with types of Iceberg, equal on all days or becoming wider"
            remedy = (
                "cast it in the source, or remove the table from storage.iceberg.tables; if days differ, materialize them again, or drop "
                "the catalog's table, without purging it, and run dssm-assets catalog"
            )
            raise SchemaError(Fault(f"Iceberg table {asset}", expected, str(error), remedy)) from error

    def _create(self, catalog: Catalog, asset: str, schema: pa.Schema) -> Transaction:
        catalog.create_namespace_if_not_exists(self.loaded.config.name)
        columns = schema.append(pa.field(DAY, pa.string()))
        change = catalog.create_table_transaction((self.loaded.config.name, asset), columns, properties=_PROPERTIES)
        with change.update_spec() as spec:
            spec.add_identity(DAY)
        names = change.table_metadata.schema().name_mapping.model_dump_json()  # our files have no column ids, only names
        return change.set_properties({"schema.name-mapping.default": names})


def _unfit(manifest: Manifest) -> str:
    """Returns why a manifest's files cannot be registered, "" if they can."""
    if not manifest.is_table:
        return "files and no table"
    return "files that many days share" if any(layout.is_shared(file.path) for file in manifest.files) else ""


def _schema(manifest: Manifest, footer: pq.FileMetaData) -> pa.Schema:
    meanings = {column.name: column.description for column in manifest.columns}
    fields = list(footer.schema.to_arrow_schema().remove_metadata())
    if wrong := [f"{one.name} {one.type}" for one in fields if one.name == DAY or one.type in (pa.uint32(), pa.uint64())]:
        expected = f"no column {DAY}, the catalog's day, and no unsigned numbers, absent in Iceberg"
        remedy = "rename or cast them in the source, or remove the table from storage.iceberg.tables"
        raise SchemaError(Fault(f"table {manifest.key}", expected, ", ".join(wrong), remedy))
    return pa.schema([one.with_metadata({"doc": meanings[one.name]}) for one in fields])


def _data_file(change: Transaction, path: str, manifest: Manifest, file: StoredFile, footer: pq.FileMetaData) -> DataFile:
    metadata = change.table_metadata
    statistics = iceberg_arrow.data_file_statistics_from_parquet_metadata(
        footer,
        iceberg_arrow.compute_statistics_plan(metadata.schema(), metadata.properties),
        iceberg_arrow.parquet_path_to_id_mapping(metadata.schema()),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(manifest.ds),
        file_size_in_bytes=file.bytes,
        spec_id=metadata.default_spec_id,
        **statistics.to_serialized_dict(),
    )


def _list_files(table: Table) -> set[str]:
    # `inspect.all_files` takes five times as long: it decodes the bounds of every column.
    manifests = {one.manifest_path: one for snapshot in table.snapshots() for one in snapshot.manifests(table.io)}
    return {entry.data_file.file_path for one in manifests.values() for entry in one.fetch_manifest_entry(table.io)}


def _metadata_files(table: Table) -> set[str]:
    return {*table.inspect.all_manifests()["path"].to_pylist(), *(snapshot.manifest_list for snapshot in table.snapshots())}
