"""The IO manager `dssm_assets.StoredTables`: finds the days of an input, reads them, and is bound to our assets."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.errors import Fault, InputError, WindowIncompleteError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.storage.manifest import Manifest
    from dssm_assets.storage.partitions import PartitionStore


def asset_attributes(scene: Scene) -> dict[str, Any]:
    """Returns asset arguments that bind a scene's assets to one IO manager, so that other projects do not have to name it."""
    key = scene.name("stored_tables")
    manager = dg.IOManagerDefinition.hardcoded_io_manager(StoredTables(scene.loaded))
    return {"io_manager_key": key, "resource_defs": {key: manager}}


class StoredTables(dg.IOManager):
    """Passes the stored days of one of our assets to a parameter of another asset, in the annotated type. It only reads.

    The days of a table come as one table, in order, with the day in the column `ds`. The input's metadata `{"columns": [...]}`
    choose the columns to read. Add `ds` to the list to keep it. `stored_input.py` has the types.

    The partition mapping selects the days; all must be stored. An asset or check without partitions gets every
    stored day of the calendar, and logs how many there are. Tables of experiments are not read.
    """

    def __init__(
        self, config: LoadedConfig | str | Path | None = None, home: str | Path | None = None, scene: str | None = None
    ) -> None:
        """Takes the arguments of `dssm_assets.open_table`, or a loaded configuration. Nothing is read yet."""
        self._config, self._home, self._scene = config, home, scene

    @cached_property
    def _loaded(self) -> LoadedConfig:
        from dssm_assets.stored import load_chosen

        return self._config if isinstance(self._config, LoadedConfig) else load_chosen(self._config, self._home, self._scene)

    def load_input(self, context: dg.InputContext) -> Any:
        """Returns the stored days for an input.

        Raises:
            ConfigError: no configuration is found, or it is wrong.
            WindowIncompleteError: days are not stored. The error gives the reason for each skipped day, and a command for the others.
            InputError: the input has no day, or as in `StoredInput.convert`.
        """
        from dssm_assets.extras.stored_tables.stored_input import StoredInput
        from dssm_assets.storage.partitions import PartitionStore

        where, columns = f"input {context.asset_key.to_user_string()}", context.definition_metadata.get("columns")
        partitions = PartitionStore(self._loaded.root, self._loaded.config.storage.options)
        manifests = self._need_days(context, where, partitions)
        stored = StoredInput(where, self._loaded, partitions, manifests, columns)
        return stored.convert(context.dagster_type.typing_type)

    def _need_days(self, context: dg.InputContext, where: str, partitions: "PartitionStore") -> "list[Manifest]":
        from dssm_assets.steps.workspace import open_workspace, reason_to_skip

        name, days = context.asset_key.path[-1], _find_days(context, where, partitions)
        try:
            return partitions.need_all(name, days)
        except WindowIncompleteError:
            if name not in {row.name for row in all_rows() if row.is_windowed}:
                raise
        workspace, stored = open_workspace(self._loaded), partitions.find_days(name, days)
        reasons = {ds: reason for ds in days if ds not in stored and (reason := reason_to_skip(workspace, ds)) is not None}
        remedy = "leave the day out of this asset's runs, or declare the input as `deps` and read the stored days with dssm_assets.open_table"
        faults = [
            Fault(where, "days with a table", f"{ds}, which is skipped: {reason}", remedy) for ds, reason in reasons.items()
        ]
        try:
            partitions.need_all(name, [ds for ds in days if ds not in reasons])
        except WindowIncompleteError as error:
            faults = [*error.faults, *faults]
        raise WindowIncompleteError(faults)

    def handle_output(self, context: dg.OutputContext, _: Any) -> None:
        where, remedy = f"output of {context.step_key}", "give the asset another io_manager_key"
        raise InputError(Fault(where, "an IO manager that writes", "dssm_assets.StoredTables, which only reads", remedy))


def _find_days(context: dg.InputContext, where: str, partitions: "PartitionStore") -> list[str]:
    name, days = context.asset_key.path[-1], list(context.asset_partition_keys) if context.has_asset_partitions else []
    if not days:
        remedy = "give its AssetSpec the partitions_def of its days, or correct the partition mapping"
        raise InputError(Fault(where, "at least one day", "an asset without partitions, or a mapping to none", remedy))
    # A notebook names its days. An asset or check without partitions may run together with assets of one day.
    names_days = not context.has_input_name or getattr(context.step_context.assets_def, "partitions_def", None) is not None
    if not names_days and days == context.asset_partitions_def.get_partition_keys():
        stored = sorted(set(days).intersection(partitions.days(name)))
        context.log.info(f"{where}: {len(stored)} of the calendar's {len(days)} days are stored")
        days = stored or days
    return days
