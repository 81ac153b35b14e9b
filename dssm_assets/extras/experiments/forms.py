"""Shows experiments in Dagster: the asset `experiments` in the graph, and the forms for settings in the Launchpad."""

import typing
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.defs.asset_row import AssetRow, LazyStep
from dssm_assets.defs.scene import Scene

NAME, CHANGES = "experiment", "changes"
FORM_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "dssm_model": (
        "training.epochs",
        "training.learning_rate",
        "model.temperature",
        "model.num_sample",
        "model.output_dim",
        "model.embedding_dropout",
        "model.prior",
        "training.validation_days",
    ),
    "item_vectors": (),
    "user_vectors": (),
    "hit_counts": ("evaluation.k",),
    "hit_rate_detail": ("evaluation.k",),
    "total_hit_rate": ("evaluation.k",),
}
"""Asset of an experiment -> its keys with a field in the Launchpad. Other keys are entered in `changes`."""
_NAME_TEXT: Final = (
    "Name of an experiment: small letters, digits and _. Its results go to experiments/<name> in the store and to the table "
    "`experiments`; the regular partitions do not change. Required if any setting differs from the configuration. Enter it once per run."
)
_CHANGES_TEXT: Final = (
    "Any keys of model, training, statistics, negative_items and channels, for example {model.dropout: 0.2, "
    "statistics.embedding_dim.item: 64}. Assets that depend on these keys (samples, feature_config ...) are made for the experiment."
)

ROWS = (
    AssetRow(
        group="evaluation",
        step=LazyStep("extras.experiments.comparison", "experiments"),
        deps=("total_hit_rate",),
        is_windowed=True,
        never_expires=True,
        description="The day's experiments next to the regular run (row `regular`): changed settings, warm hit_rate@k with its "
        "interval, gain. To run one, materialize dssm_model and its downstream assets up to here with an `experiment` name and "
        "other settings in the Launchpad. The regular partitions do not change.",
        reading="One row per experiment, scope and k. A gain within the interval is no gain. Confirm a good one on other "
        "days before you write it into the configuration.",
    ),
)


def settings_form(row: AssetRow, scene: Scene) -> dg.Field | None:
    """Returns the Launchpad form of an asset with the configured values, None if experiments cannot make the asset."""
    if row.name not in FORM_KEYS:
        return None
    fields = {NAME: _field(str, "", _NAME_TEXT), CHANGES: _field(dict, {}, _CHANGES_TEXT)}
    for key in FORM_KEYS[row.name]:
        section, name = key.split(".")
        field = PipelineConfig.model_fields[section].annotation.model_fields[name]  # type: ignore[union-attr]
        value = json_value_of(scene.loaded.config, key)
        fields[name] = _field(_form_type(field.annotation), value, f"{field.description} (default: {key})")
    return dg.Field(fields)


def _field(kind: Any, value: Any, text: str) -> dg.Field:
    return dg.Field(dg.Noneable(kind), default_value=value, is_required=False, description=text)


def _form_type(annotation: Any) -> Any:
    if typing.get_origin(annotation) is list:
        return [_form_type(typing.get_args(annotation)[0])]
    return next(kind for kind in (typing.get_args(annotation) or (annotation,)) if kind in (int, float, bool))


def json_value_of(config: PipelineConfig, key: str) -> Any:
    """Returns the JSON value of a key `section.name`."""
    section, _, name = key.partition(".")
    return config.model_dump(mode="json", include={section: {name}})[section][name]


def value_of(config: PipelineConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
