"""The IO manager `dssm_assets.StoredTables`, and its binding to our assets. It reads; nothing of ours is written through it.

    @dg.asset(ins={"item_vectors": dg.AssetIn(key=["shop", "item_vectors"])}, partitions_def=daily)
    def mine(item_vectors: pd.DataFrame) -> None: ...

Belongs here: which days an input means. Does not belong here: what its annotation makes of them (`stored_input.py`).
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.defs.scene import Scene
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.storage.manifest import Manifest
    from dssm_assets.storage.partitions import PartitionStore


def asset_attributes(scene: Scene) -> dict[str, Any]:
    """Returns the arguments that bind the assets of a scene to one IO manager, which other projects then need not name."""
    key = scene.name("stored_tables")
    manager = dg.IOManagerDefinition.hardcoded_io_manager(StoredTables(scene.loaded))
    return {"io_manager_key": key, "resource_defs": {key: manager}}


class StoredTables(dg.IOManager):
    """Hands the stored days of an asset to a parameter of another asset, in the type of its annotation.

    A table comes as one table of all its days, in order, with the day as the column `ds`: pandas.DataFrame (also without an annotation),
    polars.DataFrame, pyarrow.Table; read when it is used: polars.LazyFrame, duckdb.DuckDBPyRelation. The input's metadata
    `{"columns": [...]}` name the columns to read, `ds` among them if it is wanted. A single day also comes as a `StoredTable`; dssm_model
    as a `StoredModel`, serving_bundle as a `RecallEngine`, other artifacts as a dict of file name to local path.

    The partition mapping tells the days, and all of them must be stored. Only a run without a partition that means every day of the
    calendar gets those that are, and logs how many. Days of experiments are not meant.

    Our assets are bound to it. A code location without them declares them and names it, for example
    `dg.AssetSpec(["shop", "item_vectors"], partitions_def=daily).with_io_manager_key("shop")` and the resources
    `{"shop": dssm_assets.StoredTables("config.yaml", home=".dssm/shop")}`.
    """

    def __init__(
        self, config: LoadedConfig | str | Path | None = None, home: str | Path | None = None, scene: str | None = None
    ) -> None:
        """Keeps where to read; arguments as of `dssm_assets.open_table`, or a loaded configuration."""
        self._config, self._home, self._scene = config, home, scene

    @cached_property
    def _loaded(self) -> LoadedConfig:
        from dssm_assets.stored import load_chosen

        return self._config if isinstance(self._config, LoadedConfig) else load_chosen(self._config, self._home, self._scene)

    def load_input(self, context: dg.InputContext) -> Any:
        """Returns the days of an input.

        Raises:
            ConfigError: no configuration is found, or it is wrong.
            PartitionMissingError, WindowIncompleteError: days are not stored; it names them and the command that makes them.
            InputError: the annotation does not fit the asset, a column is unknown, or no day is meant.
            SchemaError: a column has another type on other days.
        """
        from dssm_assets.extras.stored_tables.stored_input import StoredInput
        from dssm_assets.storage.partitions import PartitionStore

        loaded = self._loaded
        partitions = PartitionStore(loaded.root, loaded.config.storage.options)
        stored = StoredInput(
            where=f"input {context.asset_key.to_user_string()}",
            loaded=loaded,
            partitions=partitions,
            manifests=_find_days(context, partitions),
            columns=context.definition_metadata.get("columns"),
        )
        return stored.convert(context.dagster_type.typing_type)

    def handle_output(self, context: dg.OutputContext, _: Any) -> None:
        """Refuses to write.

        Raises:
            InputError: always.
        """
        where, remedy = f"output of {context.step_key}", "give the asset another io_manager_key"
        raise InputError(Fault(where, "an IO manager that writes", "dssm_assets.StoredTables, which only reads", remedy))


def _find_days(context: dg.InputContext, partitions: "PartitionStore") -> "list[Manifest]":
    where, name = f"input {context.asset_key.to_user_string()}", context.asset_key.path[-1]
    if not context.has_asset_partitions:
        remedy = "give its AssetSpec the partitions_def of the asset's days"
        raise InputError(Fault(where, "an asset with daily partitions", "one without", remedy))
    days = list(context.asset_partition_keys)
    if not days:
        raise InputError(Fault(where, "at least one day", "a partition mapping that gives none", "correct the mapping"))
    if len(days) == 1:
        return [partitions.manifest(name, days[0])]
    if not context.step_context.has_partitions and days == context.asset_partitions_def.get_partition_keys():
        known = len(days)
        days = sorted(set(days).intersection(partitions.days(name))) or days
        context.log.info(f"{where}: {len(days)} of the calendar's {known} days are stored")
    return partitions.window(name, days)
