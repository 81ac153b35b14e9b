"""Converts the stored days of one input to the type that its parameter is annotated with. Does not need Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.layout import serving_root
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets.stored import StoredModel, StoredTable

DAY: Final = "ds"
"""The column that holds the day of each row, YYYY-MM-DD."""


@dataclass(frozen=True)
class StoredInput:
    """One or more days of one asset, ascending. `columns` None: all columns and the day. `where` names the input in errors."""

    where: str
    loaded: LoadedConfig
    partitions: PartitionStore
    manifests: Sequence[Manifest]
    columns: Sequence[str] | None

    def convert(self, annotation: Any) -> Any:
        """Converts the days to an annotated type. `Any` means the first type that the asset can be converted to.

        Raises:
            InputError: the asset cannot be converted to this type, the type takes only one day, or a column is unknown.
            SchemaError: a column has different types on different days.
            PartitionReplacedError: a day has been stored again meanwhile, and its old files are gone.
        """
        first = self.manifests[0]
        kinds = _TABLES if first.is_table else _ARTIFACTS.get(first.asset, {}) | {"builtins.dict": _open_files}
        wanted = get_origin(annotation) or annotation
        name = next(iter(kinds)) if wanted is Any else f"{wanted.__module__}.{wanted.__qualname__}"
        by_ends = {_ends(kind): convert for kind, convert in kinds.items()}
        if _ends(name) not in by_ends:
            raise InputError(Fault(self.where, f"one of: {', '.join(kinds)}", name, "change the parameter's annotation"))
        return by_ends[_ends(name)](self)

    def open_dataset(self) -> pads.Dataset:
        """Returns a lazy table of all days with the column `ds`. Columns that a day lacks are null."""
        store, format_ = self.partitions, pads.ParquetFileFormat()
        filesystem = LocalFileSystem() if store.is_local else PyFileSystem(FSSpecHandler(store.filesystem_for(self.manifests)))
        fragments = [
            format_.make_fragment(store.file_path(one, file), filesystem, pc.field(DAY) == one.ds)
            for one in self.manifests
            for file in one.files
        ]
        return pads.FileSystemDataset(fragments, self._find_schema(), format_, filesystem)

    def read(self) -> pa.Table:
        with self.partitions.reading(self.manifests):
            return self.open_dataset().to_table()

    def need_one_day(self) -> Manifest:
        """Returns the manifest of the only day. InputError: there are several days, or columns are chosen."""
        if len(self.manifests) > 1 or self.columns is not None:
            got = f"days {', '.join(one.ds for one in self.manifests)}, columns {self.columns or 'all'}"
            remedy = "annotate the parameter with a table type such as pandas.DataFrame, or choose one day and no columns"
            raise InputError(Fault(self.where, "one whole day for this annotation", got, remedy))
        return self.manifests[0]

    def _find_schema(self) -> pa.Schema:
        """Returns one schema of the columns to read that holds for all days."""
        forms = {tuple((column.name, column.type) for column in one.columns): one for one in self.manifests}
        schemas = [TableStore(self.partitions).read_schema(one).append(pa.field(DAY, pa.string())) for one in forms.values()]
        known = list(dict.fromkeys(name for schema in schemas for name in schema.names))
        wanted = known if self.columns is None else self.columns
        if unknown := ", ".join(name for name in wanted if name not in known):
            expected = f"columns among {', '.join(known)}"
            raise InputError(Fault(f"{self.where}, metadata columns", expected, unknown, "correct the names"))
        try:
            found = pa.unify_schemas([pa.schema([one for one in schema if one.name in wanted]) for schema in schemas])
        except pa.ArrowTypeError as error:
            where = f"{self.where}, days {', '.join(one.ds for one in forms.values())}"
            remedy = "choose other columns in the input's metadata, or materialize the older days again"
            raise SchemaError(Fault(where, "columns of one type", str(error), remedy)) from error
        return pa.schema([found.field(name) for name in wanted])


def _open_engine(days: StoredInput) -> Any:
    from dssm_assets.service.engine.recall_engine import RecallEngine
    from dssm_assets.service.engine.shop_lists import ShopLists

    bundle_id = (manifest := days.need_one_day()).facts["bundle_id"]
    if bundle_id is None:
        remedy = f"see the checks of serving_bundle of {manifest.ds}, and materialize it again"
        raise InputError(Fault(f"{days.where}, {manifest.ds}", "a published bundle", "one that failed its checks", remedy))
    root, config = serving_root(days.loaded.root), days.loaded.config
    engine = RecallEngine.open(root, config.storage.options, bundle_id=str(bundle_id))
    lists = ShopLists(config.serving.blocked_items, config.serving.stocked_items, root, config.storage.options)
    return engine.showing(lists.find_shown(engine.bundle.items))


def _open_files(days: StoredInput) -> dict[str, Path]:
    workspace, manifest = open_workspace(days.loaded), days.need_one_day()
    return {file.name: workspace.artifacts.local_path(manifest, file.name) for file in manifest.files}


def _ends(name: str) -> tuple[str, str]:
    """Returns package and class of a full class name. The modules between them change from release to release."""
    return name.partition(".")[0], name.rpartition(".")[2]


_Kinds = dict[str, Callable[[StoredInput], Any]]
_TABLES: Final[_Kinds] = {
    "pandas.DataFrame": lambda days: days.read().to_pandas(),
    "polars.DataFrame": lambda days: import_module("polars").from_arrow(days.read()),
    "polars.LazyFrame": lambda days: import_module("polars").scan_pyarrow_dataset(days.open_dataset()),
    "pyarrow.Table": StoredInput.read,
    "duckdb.DuckDBPyRelation": lambda days: import_module("duckdb").connect().from_arrow(days.open_dataset()),
    "dssm_assets.stored.StoredTable": lambda days: StoredTable(days.need_one_day(), TableStore(days.partitions)),
}
_ARTIFACTS: Final[Mapping[str, _Kinds]] = {
    "dssm_model": {
        "dssm_assets.stored.StoredModel": lambda days: StoredModel(open_workspace(days.loaded), days.need_one_day().ds)
    },
    "serving_bundle": {"dssm_assets.service.engine.recall_engine.RecallEngine": _open_engine},
}
