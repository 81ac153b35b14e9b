"""One asset in one run: a regular run, or one that works in the partitions of an experiment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.data_version import extract_data_version_from_entry

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.metadata import ColumnLineage, experiment_metadata, partition_metadata, structure_metadata
from dssm_assets.defs.run_settings import requested_experiment
from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace

EXPERIMENT_TAG = "dssm/experiment"
CHANGED_TAG = "dssm/changed"


class AssetRun:
    """What a run means for one asset of a scene."""

    def __init__(self, context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> None:
        """Reads the run's settings.

        Raises:
            ConfigError: they are wrong, or the run is an experiment and the asset cannot be part of one.
        """
        self._context = context
        self._scene = scene
        self._row = row
        self.experiment = requested_experiment(context.run.run_config, scene)
        self.data_version: dg.DataVersion | None = None
        """Data version to report instead of the partition's digest; set in an experiment."""
        if self.experiment is not None and row.settings is None and not row.is_experiment_table:
            *most, last = [other.name for other in all_rows() if other.settings is not None or other.is_experiment_table]
            where, expected = f"experiment {self.experiment.name}", f"a run of {', '.join(most)} and {last} alone"
            raise ConfigError(Fault(where, expected, row.name, "remove it from the run"))

    def open_workspace(self, regular: "Workspace", days: Sequence[str]) -> "Workspace":
        """Returns the workspace to use: the regular one, or the experiment's. Tags the run of an experiment.

        Raises:
            ConfigError: an experiment over several days, a value out of bounds, or no regular partition to compare with.
        """
        self._regular = self._workspace = regular
        if self.experiment is not None and not self._row.is_experiment_table:
            from dssm_assets.extras.experiments.experiments import open_experiment

            if len(days) != 1:
                expected, got = "one day per run", f"{len(days)} days"
                raise ConfigError(Fault(f"experiment {self.experiment.name}", expected, got, "start one run per day"))
            self._workspace, self.experiment = open_experiment(regular, self.experiment, self._row.name, days[0])
            self.data_version = self._regular_data_version(days[0])
            tags = {EXPERIMENT_TAG: self.experiment.name, CHANGED_TAG: self.experiment.summary or "nothing"}
            self._context.instance.add_run_tags(self._context.run.run_id, tags)
            self._context.log.info(f"experiment {self.experiment.name}: {tags[CHANGED_TAG]}")
        self._last_day = days[-1]
        self._lineage = ColumnLineage(self._scene, self._workspace, self._row)
        return self._workspace

    def metadata(self, result: "StepResult", seconds: float) -> dict[str, Any]:
        """Returns the metadata of one partition; those about columns and inputs for the last day of a run only.

        They are nine tenths of an event, the UI shows those of the latest one, and every partition's manifest has its own.
        """
        from dssm_assets.steps.workspace import window_days

        metadata = partition_metadata(result, self._workspace, seconds)
        if result.manifest.ds == self._last_day:
            metadata |= structure_metadata(result.manifest, self._lineage)
        if self._row.is_windowed:
            window = window_days(result.manifest.ds, self._workspace.config.window.days)
            metadata["window"] = f"{window[0]} to {window[-1]}"
        if self._workspace is self._regular or self.experiment is None:
            return metadata
        regular = self._regular.need(self._row.name, result.manifest.ds)
        return experiment_metadata(metadata, self.experiment, regular.digest)

    def label_check(self, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        """Returns a check's result. In an experiment it says so and never blocks, because nothing is published from one."""
        if self.experiment is None or self._workspace is self._regular:
            return result
        description = f"experiment {self.experiment.name}: {result.description}"
        return result._replace(severity=dg.AssetCheckSeverity.WARN, description=description)

    def _regular_data_version(self, ds: str) -> dg.DataVersion | None:
        """Returns the data version of the regular partition, so that an experiment makes no downstream asset stale."""
        key = self._scene.key(self._row.name)
        record = self._context.instance.get_latest_data_version_record(key, partition_key=ds)
        return None if record is None else extract_data_version_from_entry(record.event_log_entry)
