"""One asset in one regular run: its workspace, its metadata, its checks. An extra may open other runs, such as those of experiments."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.metadata import ColumnLineage, partition_metadata, structure_metadata
from dssm_assets.defs.scene import Scene
from dssm_assets.installed_extras import load_all

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace


def open_run(context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> "AssetRun":
    """Returns the run of an asset: that of the extra for which the run's settings ask, else the regular one.

    Raises:
        ConfigError: the settings are wrong.
    """
    opened = (extra.open_run(context, scene, row) for extra in load_all("runs"))
    return next(filter(None, opened), None) or AssetRun(context, scene, row)


class AssetRun:
    """The regular run of an asset of a scene.

    Attributes:
        data_version: the data version to report in place of the partition's digest.
        is_regular: whether the regular partitions are written.
    """

    is_regular = True

    def __init__(self, context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> None:
        self.context, self.scene, self.row = context, scene, row
        self.data_version: dg.DataVersion | None = None

    def open_workspace(self, regular: "Workspace", days: Sequence[str]) -> "Workspace":
        """Returns the workspace to use, given the regular one."""
        self._workspace, self._last_day = regular, days[-1]
        self._lineage = ColumnLineage(self.scene, regular, self.row)
        return regular

    def describe(self, result: "StepResult", seconds: float) -> dict[str, Any]:
        """Returns the metadata of one partition; those about columns and inputs for the last day of a run only.

        They are nine tenths of an event, the UI shows those of the latest one, and every partition's manifest has its own.
        """
        from dssm_assets.steps.workspace import window_days

        metadata = partition_metadata(result, self._workspace, seconds)
        if result.manifest.ds == self._last_day:
            metadata |= structure_metadata(result.manifest, self._lineage)
        if self.row.is_windowed:
            window = window_days(result.manifest.ds, self._workspace.config.window.days)
            metadata["window"] = f"{window[0]} to {window[-1]}"
        return metadata

    def label_check(self, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        """Returns a check's result as it is reported."""
        return result
