"""The stored days of one input, in the type that its annotation names. No Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets.stored import StoredModel, StoredTable

if TYPE_CHECKING:
    from dssm_assets.serving.recall_engine import RecallEngine

DAY: Final = "ds"
"""The column that holds the day of each row, YYYY-MM-DD."""


@dataclass(frozen=True)
class StoredInput:
    """Days of one asset.

    Attributes:
        where: the input, for errors.
        manifests: its days, ascending, at least one.
        columns: the columns to read, None for all and the day.
    """

    where: str
    loaded: LoadedConfig
    partitions: PartitionStore
    manifests: Sequence[Manifest]
    columns: Sequence[str] | None

    def convert(self, annotation: Any) -> Any:
        """Returns the days in the type of an annotation; `Any` means the first type that fits.

        Raises:
            InputError: the asset cannot be had in this type, several days are meant by one that holds a single one, or a column is unknown.
            SchemaError: a column has another type on other days.
            PartitionReplacedError: a day was written again meanwhile, and its former files are gone.
        """
        asset, is_table = self.manifests[0].asset, all(file.name.endswith(".parquet") for file in self.manifests[0].files)
        kinds = _TABLES if is_table else _ARTIFACTS.get(asset, {}) | _FILES
        wanted = get_origin(annotation) or annotation
        if wanted is Any:
            return next(iter(kinds.values()))(self)
        name = f"{wanted.__module__}.{wanted.__qualname__}"
        for kind, convert in kinds.items():
            if _shorten(kind) == _shorten(name):
                return convert(self)
        expected = f"{'a table' if is_table else 'an artifact'}, annotated with one of: {', '.join(kinds)}"
        raise InputError(Fault(self.where, expected, name, "change the parameter's annotation"))

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
        """Returns the rows of all days."""
        with self.partitions.reading(self.manifests):
            return self.open_dataset().to_table()

    def need_one_day(self) -> Manifest:
        """Returns the only day, of which no columns are named.

        Raises:
            InputError: there are several days, or columns are named.
        """
        first, last = self.manifests[0], self.manifests[-1]
        if first is not last or self.columns is not None:
            got = "metadata columns" if first is last else f"{len(self.manifests)} days, {first.ds} to {last.ds}"
            remedy = "annotate a table with pandas.DataFrame or another table type, or ask for one day without columns"
            raise InputError(Fault(self.where, "one whole day for this annotation", got, remedy))
        return first

    def _find_schema(self) -> pa.Schema:
        """Returns the schema of the columns to read, over all days."""
        tables = TableStore(self.partitions)
        forms = {tuple((column.name, column.type) for column in one.columns): one for one in self.manifests}
        read = [[*tables.read_schema(one), pa.field(DAY, pa.string())] for one in forms.values()]
        known = list(dict.fromkeys(field.name for fields in read for field in fields))
        wanted = known if self.columns is None else self.columns
        try:
            found = pa.unify_schemas([pa.schema([one for one in fields if one.name in wanted]) for fields in read])
        except pa.ArrowTypeError as error:
            days = ", ".join(one.ds for one in forms.values())
            remedy = "name the columns to read in the input's metadata, or materialize the older days again"
            raise SchemaError(Fault(f"{self.where}, days {days}", "columns of one type", str(error), remedy)) from error
        if unknown := ", ".join(name for name in wanted if name not in known):
            expected = f"columns among {', '.join(known)}"
            raise InputError(Fault(f"{self.where}, metadata columns", expected, unknown, "correct the names"))
        return pa.schema([found.field(name) for name in wanted])


def _shorten(name: str) -> tuple[str, str]:
    """Returns the package and the class: the modules in between differ from release to release."""
    return name.partition(".")[0], name.rpartition(".")[2]


def _open_engine(days: StoredInput) -> RecallEngine:
    from dssm_assets.serving.recall_engine import open_shop_engine
    from dssm_assets.storage.layout import serving_root

    bundle_id = (manifest := days.need_one_day()).facts["bundle_id"]
    if bundle_id is None:
        remedy = f"see the checks of serving_bundle of {manifest.ds}, and materialize it again"
        raise InputError(Fault(f"{days.where}, {manifest.ds}", "a published bundle", "one that failed its checks", remedy))
    config = days.loaded.config
    return open_shop_engine(serving_root(days.loaded.root), config.storage.options, config.serving, bundle_id=str(bundle_id))


def _open_files(days: StoredInput) -> dict[str, Path]:
    workspace, manifest = open_workspace(days.loaded), days.need_one_day()
    return {file.name: workspace.artifacts.local_path(manifest, file.name) for file in manifest.files}


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
    "serving_bundle": {"dssm_assets.serving.recall_engine.RecallEngine": _open_engine},
}
_FILES: Final[_Kinds] = {"builtins.dict": _open_files}
