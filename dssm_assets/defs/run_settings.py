"""The forms of the Launchpad, and the experiment that a run's settings ask for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, ValidationError

from dssm_assets.core.config.pipeline import KEYS, json_value_of, value_of
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.extras.experiments.experiment import Experiment

NO_NAME = ""
"""Value of `experiment` in the form until a user enters a name."""
_NAME, _CHANGES = "experiment", "changes"


class ExperimentSettings(dg.Config):
    """The form of every asset that can be part of an experiment."""

    experiment: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Name of an experiment: small letters, digits and _. Its results go to experiments/<name> in the store and "
        "to the table `experiments`; the regular partitions do not change. Required if any setting differs from the "
        "configuration. Entering it once per run is enough.",
    )
    changes: dict[str, Any] | None = Field(
        default=None,
        description="Any keys of model, training, statistics, negative_items and channels, for example {model.dropout: 0.2, "
        "statistics.embedding_dim.item: 64}. What these keys reach (samples, feature_config ...) is made for the experiment.",
    )


class TrainingSettings(ExperimentSettings):
    """The form of dssm_model."""

    epochs: int | None = Field(
        default=None, ge=1, le=1000, description="Passes over the window, 1 to 1000 (default: training.epochs)."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Learning rate of the dense layers, above 0 and at most 10 (default: training.learning_rate).",
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="The softmax divides similarities by it: smaller is sharper, 0.05 to 0.2 is usual. Above 0 and at most 10 "
        "(default: model.temperature).",
    )
    num_sample: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Sampled negatives per batch, in addition to the batch's own items; 0 to 1,000,000 (default: "
        "model.num_sample).",
    )
    output_dim: int | None = Field(
        default=None, ge=2, le=4096, description="Dimensions of the vectors, 2 to 4096 (default: model.output_dim)."
    )
    embedding_dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Fraction of the shared-embedding columns that are dropped in training (default: model.embedding_dropout).",
    )
    prior: bool | None = Field(
        default=None, description="Adds popularity to the score; needs validation days (default: model.prior)."
    )
    validation_days: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Last days of the window on which the number of epochs is chosen (default: training.validation_days).",
    )


class EvaluationSettings(ExperimentSettings):
    """The form of hit_counts, hit_rate_detail and total_hit_rate."""

    k: list[int] | None = Field(
        default=None,
        min_length=1,
        description="Lengths of the scored lists, ascending, at least 1 each, for example [50, 200, 500] (default: evaluation.k).",
    )


_FORMS = (TrainingSettings, EvaluationSettings)


def form_for(settings: type[ExperimentSettings], scene: Scene) -> dg.Field:
    """Returns a form as the Launchpad shows it: pre-filled with the configured values, without an experiment's name."""
    fields: dict[str, dg.Field] = {}
    for name, field in settings.to_config_schema().as_field().config_type.fields.items():
        value = value_of(scene.loaded.config, KEYS[name]) if name in KEYS else {} if name == _CHANGES else NO_NAME
        fields[name] = dg.Field(field.config_type, default_value=value, is_required=False, description=field.description)
    return dg.Field(fields)


def requested_experiment(run_config: Mapping[str, Any], scene: Scene) -> "Experiment | None":
    """Returns the experiment that a run asks for, with the settings of all its forms; None for a regular run.

    Raises:
        ConfigError: a value is out of bounds, a run has two names or two values of one setting, or a setting differs from
            the configuration and no name is given.
    """
    from dssm_assets.extras.experiments.experiment import REGULAR, Experiment, refuse_unnamed

    changes = _changed_settings(run_config, scene)
    name = changes.pop(_NAME, None)
    if name is None:
        config = scene.loaded.config
        refuse_unnamed(config, changes, scene.loaded.path.name if scene.loaded.path else "the configuration file")
        return None
    if name == REGULAR:
        raise ConfigError(Fault("run settings, experiment", "another name", f"the reserved {name!r}", "choose another name"))
    return Experiment(name, changes)


def _changed_settings(run_config: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """Returns key -> value of the settings that differ from the configuration, over all forms of a run, and the name.

    Forms are pre-filled, and several forms may show the same setting: a configured value next to a changed one is no conflict.
    """
    from dssm_assets.extras.experiments.settings import expand_settings

    config = scene.loaded.config
    found: dict[str, Any] = {}
    faults = []
    for op, entry in sorted(run_config.get("ops", {}).items()):
        if op != scene.op(op.rpartition("__")[2]):
            continue
        entered = {key: value for key, value in (entry.get("config") or {}).items() if value not in (None, NO_NAME, {})}
        try:
            values = _parse_settings(entered)
            values |= expand_settings(config, values.pop(_CHANGES, {}))
        except ValidationError as error:
            faults += [_fault(op, item) for item in error.errors()]
            continue
        except ConfigError as error:
            faults += error.faults
            continue
        for setting, value in values.items():
            key = KEYS.get(setting, setting)
            if key != _NAME and value == json_value_of(config, key):
                continue
            if found.setdefault(key, value) != value:
                where = f"run settings, {op}.{setting}"
                faults.append(Fault(where, f"{found[key]}, as elsewhere in the run", f"{value}", "enter one value"))
    ConfigError.raise_if(faults)
    return found


def _parse_settings(entered: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for form in _FORMS:
        own = {key: value for key, value in entered.items() if key in form.model_fields}
        values |= {key: value for key, value in dict(form(**own)).items() if value is not None}
    return values


def _fault(op: str, item: Any) -> Fault:
    field = ".".join(map(str, item["loc"]))
    return Fault(f"run settings, {op}.{field}", item["msg"], repr(item.get("input"))[:80], "correct the value")
