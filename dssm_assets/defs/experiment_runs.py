"""One asset's part of a run: in the standing partitions, or in an experiment's own.

Belongs here: the workspace, metadata, checks and data version that follow from a run's settings. Does not belong here: the
settings themselves (`run_settings.py`) and what an experiment changes (`core/experiments.py`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.data_version import extract_data_version_from_entry

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.lineage import Lineage
from dssm_assets.defs.metadata import metadata_of, of_experiment
from dssm_assets.defs.run_settings import CHANGED_TAG, EXPERIMENT_TAG, experiment_of
from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace


class StepRun:
    """What a run means for one asset of a scene."""

    def __init__(
        self, context: dg.AssetExecutionContext, scene: Scene, asset: str, deps: Sequence[str], *, takes_settings: bool
    ) -> None:
        """Reads the run's settings.

        Raises:
            ConfigError: they are wrong, or the run is an experiment and the asset takes no part in experiments.
        """
        self._context = context
        self._scene = scene
        self._asset = asset
        self._deps = deps
        self.experiment = experiment_of(context.run.run_config, scene)
        self.data_version: dg.DataVersion | None = None
        if self.experiment is not None and not takes_settings and asset != "experiments":
            expected = "dssm_model, item_vectors, user_vectors, hit_counts, hit_rate_detail, total_hit_rate and experiments"
            where = f"experiment {self.experiment.name}"
            raise ConfigError(Fault(where, f"a run of {expected} alone", asset, "take it out of the run"))

    def open(self, standing: "Workspace", days: Sequence[str]) -> "Workspace":
        """Returns the workspace to work in: the standing one, or the experiment's; tags the run of an experiment.

        Raises:
            ConfigError: several days at once, a value out of bounds, or no standing partition to compare with.
        """
        self._standing = self._workspace = standing
        if self.experiment is not None and self._asset != "experiments":
            from dssm_assets.steps.experiments import open_experiment

            if len(days) != 1:
                expected, got = "one day per run", f"{len(days)} days"
                raise ConfigError(Fault(f"experiment {self.experiment.name}", expected, got, "run the days one by one"))
            self._workspace, self.experiment = open_experiment(standing, self.experiment, self._asset, days[0])
            self.data_version = self._standing_version(days[0])
            tags = {EXPERIMENT_TAG: self.experiment.name, CHANGED_TAG: self.experiment.told or "nothing"}
            self._context.instance.add_run_tags(self._context.run.run_id, tags)
            self._context.log.info(f"experiment {self.experiment.name}: {tags[CHANGED_TAG]}")
        self._lineage = Lineage(self._scene, self._workspace, self._asset, self._deps)
        return self._workspace

    def metadata(self, result: "StepResult", seconds: float, *, is_windowed: bool) -> dict[str, Any]:
        """Returns the metadata of one partition."""
        from dssm_assets.steps.workspace import window_days

        metadata = metadata_of(result, self._workspace, seconds)
        if (lineage := self._lineage.of(result.manifest)) is not None:
            metadata["dagster/column_lineage"] = lineage
        if is_windowed:
            window = window_days(result.manifest.ds, self._workspace.config.window.days)
            metadata["window"] = f"{window[0]} to {window[-1]}"
        if self._workspace is self._standing or self.experiment is None:
            return metadata
        standing = self._standing.need(self._asset, result.manifest.ds)
        return of_experiment(metadata, self.experiment, standing.digest)

    def check(self, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        """Returns a check's result; that of an experiment says so and never blocks, for nothing is shipped from it."""
        if self.experiment is None or self._workspace is self._standing:
            return result
        told = f"experiment {self.experiment.name}: {result.description}"
        return result._replace(severity=dg.AssetCheckSeverity.WARN, description=told)

    def _standing_version(self, ds: str) -> dg.DataVersion | None:
        """Returns the data version of the standing partition: an experiment makes nothing behind it stale."""
        key = self._scene.key(self._asset)
        record = self._context.instance.get_latest_data_version_record(key, partition_key=ds)
        return None if record is None else extract_data_version_from_entry(record.event_log_entry)
