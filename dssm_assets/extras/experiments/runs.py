"""Runs of experiments in Dagster. If a run's settings name an experiment, the run reads and writes this experiment's partitions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_run import AssetRun
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.experiments import experiments
from dssm_assets.extras.experiments.forms import CHANGES, FORM_KEYS, NAME, value_of
from dssm_assets.steps.workspace import StepResult, Workspace

COMPARISON: Final = "experiments"
"""The asset that compares the experiments of a day."""


def open_run(context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> AssetRun | None:
    """Returns the experiment's run of an asset if the settings name an experiment, else None."""
    experiment = requested_experiment(context.run.run_config, scene)
    if experiment is None:
        return None
    if row.name == COMPARISON:
        comparison = AssetRun(context, scene, row)
        comparison.is_regular = False  # nothing is made first
        return comparison
    if row.name not in FORM_KEYS:
        expected = f"a run of {', '.join(FORM_KEYS)} and {COMPARISON} alone"
        raise ConfigError(Fault(f"experiment {experiment.name}", expected, row.name, "remove it from the run"))
    return ExperimentRun(context, scene, row, experiment)


def requested_experiment(run_config: Mapping[str, Any], scene: Scene) -> experiments.Experiment | None:
    """Returns the experiment named in a run's settings, with the changed settings of all its forms. None for a regular run."""
    changes = _changed_settings(run_config, scene)
    name = changes.pop(NAME, None)
    if name is not None:
        ConfigError.raise_if(experiments.find_name_faults(name, "run settings, experiment"))
        return experiments.Experiment(name, changes)
    file = scene.loaded.path.name if scene.loaded.path else "the configuration file"
    ConfigError.raise_if(
        Fault(
            f"run settings, {key}",
            f"{value_of(scene.loaded.config, key)}, as configured, or an experiment's name",
            f"{value} without a name",
            f"either enter a name as `experiment`: the results go to experiments/<name> and the regular partition does not "
            f"change; or set {key} in {file} and materialize again: that replaces the regular partition",
        )
        for key, value in changes.items()
    )
    return None


def _changed_settings(run_config: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """Returns key -> value of the settings, in all forms of a run, that differ from the configuration; and the experiment's name.

    Several pre-filled forms may show the same setting. A configured value in one and a changed value in another do not conflict.
    """
    config, keys = scene.loaded.config, {key.split(".")[1]: key for keys in FORM_KEYS.values() for key in keys}
    changed: dict[str, Any] = {}
    faults = []
    for op, entry in sorted(run_config.get("ops", {}).items()):
        if op != scene.op(op.rpartition("__")[2]):
            continue
        entered = {name: value for name, value in (entry.get("config") or {}).items() if value not in (None, "", {})}
        named = {NAME: entered.pop(NAME)} if NAME in entered else {}
        try:
            values = experiments.expand_settings(config, entered.pop(CHANGES, {}))
        except ConfigError as error:
            faults += error.faults
            continue
        values |= {keys[name]: value for name, value in entered.items() if name in keys}
        for key, value in (experiments.drop_configured(config, values) | named).items():
            if changed.setdefault(key, value) != value:
                expected = f"{changed[key]}, as elsewhere in the run"
                faults.append(Fault(f"run settings, {op}, {key}", expected, f"{value}", "enter one value"))
    ConfigError.raise_if(faults)
    return changed


class ExperimentRun(AssetRun):
    """A run of an asset that writes partitions of an experiment. It publishes nothing."""

    is_regular = False

    def __init__(
        self, context: dg.AssetExecutionContext, scene: Scene, row: AssetRow, experiment: experiments.Experiment
    ) -> None:
        super().__init__(context, scene, row)
        self._experiment = experiment

    def open_workspace(self, regular: Workspace, days: Sequence[str]) -> Workspace:
        """Returns the workspace of the experiment, and tags the run."""
        where = f"experiment {self._experiment.name}"
        if len(days) != 1:
            raise ConfigError(Fault(where, "one day per run", f"{len(days)} days", "start one run per day"))
        workspace, self._experiment = experiments.open_experiment(regular, self._experiment, self.row.name, days[0])
        # Reported as data version, so that an experiment makes no downstream asset stale.
        self._regular_digest = regular.need(self.row.name, days[0]).digest
        self.data_version = dg.DataVersion(self._regular_digest)
        changed = experiments.describe_changes(self._experiment.changes)
        tags = {"dssm/experiment": self._experiment.name, "dssm/changed": changed}
        self.context.instance.add_run_tags(self.context.run.run_id, tags)
        self.context.log.info(f"{where}: {changed}")
        return super().open_workspace(workspace, days)

    def describe(self, result: StepResult, seconds: float) -> dict[str, Any]:
        """Returns the metadata of a partition. All figures are one JSON entry, because the UI would plot single numbers as regular figures."""
        metadata = super().describe(result, seconds)
        figures = {key: value for key, value in metadata.items() if isinstance(value, (int, float))}
        digest = self._regular_digest[:12]
        first = {
            "experiment": self._experiment.name,
            "changed": experiments.describe_changes(self._experiment.changes),
            "regular_partition": f"unchanged: it has digest {digest}; the experiment's partition is at dagster/uri",
        }
        rest = {key: value for key, value in metadata.items() if key not in figures}
        return first | rest | {"experiment_figures": dg.MetadataValue.json(figures)}

    def label_check(self, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        """Returns a check's result that names the experiment and never blocks."""
        description = f"experiment {self._experiment.name}: {result.description}"
        return result._replace(severity=dg.AssetCheckSeverity.WARN, description=description)
