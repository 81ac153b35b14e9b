"""One asset's part of a run: in the standing partitions, or in an experiment's own.

Belongs here: the workspace, metadata, checks and data version that follow from a run's settings. Does not belong here: the
settings themselves (`run_settings.py`) and what an experiment changes (`core/experiments.py`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.data_version import extract_data_version_from_entry
from pydantic import Field, ValidationError

from dssm_assets.core.config.pipeline import KEYS, value_of
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.metadata import Lineage, metadata_of, of_experiment
from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.core.experiments import Experiment
    from dssm_assets.steps.workspace import StepResult, Workspace


EXPERIMENT_TAG = "dssm/experiment"
CHANGED_TAG = "dssm/changed"
NO_NAME = ""
"""What a form says as long as nobody has named an experiment."""
_NAME = "experiment"


class ExperimentSettings(dg.Config):
    """The form of every asset that an experiment can make of its own."""

    experiment: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Name of an experiment, small letters, digits and _. Its results lie in experiments/<name> of the store "
        "and in the table `experiments`; the standing partition stays as it is. Needed as soon as a setting differs from the "
        "configuration. Once per run is enough.",
    )


class TrainingSettings(ExperimentSettings):
    """The form of dssm_model."""

    epochs: int | None = Field(
        default=None, ge=1, le=1000, description="Passes over the window, 1 to 1000 (default: training.epochs)."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=10, description="Of the dense layers, above 0 up to 10 (default: training.learning_rate)."
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Similarities are divided by it in the softmax: smaller is sharper, 0.05 to 0.2 is usual; above 0 up to 10 "
        "(default: model.temperature).",
    )
    num_sample: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Sampled negatives per batch beside the batch's own items, 0 to 1,000,000 (default: model.num_sample).",
    )


class EvaluationSettings(ExperimentSettings):
    """The form of hit_counts, hit_rate_detail and total_hit_rate."""

    k: list[int] | None = Field(
        default=None,
        min_length=1,
        description="Lengths of the lists that are scored, at least 1 each, ascending, for example [50, 200, 500] (default: "
        "evaluation.k).",
    )


_FORMS = (TrainingSettings, EvaluationSettings)


def experiment_of(run_config: Mapping[str, Any], scene: Scene) -> "Experiment | None":
    """Returns the experiment that a run is, with the settings given anywhere in its configuration; None for none.

    Raises:
        ConfigError: a value out of bounds, two names or two values of one setting, a changed setting without a name.
    """
    from dssm_assets.core.experiments import STANDING, Experiment, refuse_unnamed

    given = _given(run_config, scene)
    name = given.pop(_NAME, None)
    changes = {KEYS[setting]: value for setting, value in given.items()}
    if name is None:
        config = scene.loaded.config
        refuse_unnamed(config, changes, scene.loaded.path.name if scene.loaded.path else "the configuration file")
        return None
    if name == STANDING:
        raise ConfigError(Fault("run settings, experiment", "a name of its own", f"{name!r}", "choose another name"))
    return Experiment(name, changes)


def form_of(settings: type[ExperimentSettings], scene: Scene) -> dg.Field:
    """Returns a form as the Launchpad shows it, ready to be filled in: no name, every setting with its configured value."""
    fields: dict[str, dg.Field] = {}
    for name, field in settings.to_config_schema().as_field().config_type.fields.items():
        value = value_of(scene.loaded.config, KEYS[name]) if name in KEYS else NO_NAME
        fields[name] = dg.Field(field.config_type, default_value=value, is_required=False, description=field.description)
    return dg.Field(fields)


def _given(run_config: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """Returns setting -> value over all ops of the scene, each as its form reads it, without those that say what the
    configuration says: a form comes filled in, and a setting stands in several.
    """
    found: dict[str, Any] = {}
    faults = []
    for op, entry in sorted(run_config.get("ops", {}).items()):
        told = {key: value for key, value in (entry.get("config") or {}).items() if value not in (None, NO_NAME)}
        if op != scene.op(op.rpartition("__")[2]):
            continue
        try:
            values = _read(told)
        except ValidationError as error:
            faults += [_fault(op, item) for item in error.errors()]
            continue
        for setting, value in values.items():
            if setting in KEYS and value == value_of(scene.loaded.config, KEYS[setting]):
                continue
            if found.setdefault(setting, value) != value:
                where = f"run settings, {op}.{setting}"
                faults.append(Fault(where, f"{found[setting]}, as elsewhere in the run", f"{value}", "give one value"))
    if faults:
        raise ConfigError(faults)
    return found


def _read(told: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for form in _FORMS:
        own = {key: value for key, value in told.items() if key in form.model_fields}
        values |= {key: value for key, value in dict(form(**own)).items() if value is not None}
    return values


def _fault(op: str, item: Any) -> Fault:
    place = ".".join(map(str, item["loc"]))
    return Fault(f"run settings, {op}.{place}", item["msg"], repr(item.get("input"))[:80], "correct the value")


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
