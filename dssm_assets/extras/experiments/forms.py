"""The forms of the Launchpad: an experiment's name, its changes, and the keys that have a field of their own."""

import typing
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from dssm_assets.core.config.pipeline import PipelineConfig, json_value_of
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.scene import Scene

NAME, CHANGES = "experiment", "changes"
_TRAINING_KEYS: Final = (
    "training.epochs",
    "training.learning_rate",
    "model.temperature",
    "model.num_sample",
    "model.output_dim",
    "model.embedding_dropout",
    "model.prior",
    "training.validation_days",
)
FORM_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "dssm_model": _TRAINING_KEYS,
    "item_vectors": (),
    "user_vectors": (),
    "hit_counts": ("evaluation.k",),
    "hit_rate_detail": ("evaluation.k",),
    "total_hit_rate": ("evaluation.k",),
}
"""Assets that can be part of an experiment -> keys that have a field of their own in the Launchpad; others are entered as `changes`."""
_NAME_TEXT: Final = (
    "Name of an experiment: small letters, digits and _. Its results go to experiments/<name> in the store and to the table "
    "`experiments`; the regular partitions do not change. Required if any setting differs from the configuration. Enter it once per run."
)
_CHANGES_TEXT: Final = (
    "Any keys of model, training, statistics, negative_items and channels, for example {model.dropout: 0.2, "
    "statistics.embedding_dim.item: 64}. What these keys reach (samples, feature_config ...) is made for the experiment."
)


def settings_form(row: AssetRow, scene: Scene) -> dg.Field | None:
    """Returns an asset's form as the Launchpad shows it, with the configured values; None for an asset that no experiment makes."""
    if row.name not in FORM_KEYS:
        return None
    fields = {
        NAME: dg.Field(dg.Noneable(str), default_value="", is_required=False, description=_NAME_TEXT),
        CHANGES: dg.Field(dg.Noneable(dict), default_value={}, is_required=False, description=_CHANGES_TEXT),
    }
    for key in FORM_KEYS[row.name]:
        section, name = key.split(".")
        field = PipelineConfig.model_fields[section].annotation.model_fields[name]  # type: ignore[union-attr]
        value, text = json_value_of(scene.loaded.config, key), f"{field.description} (default: {key})"
        fields[name] = dg.Field(
            dg.Noneable(_form_type(field.annotation)), default_value=value, is_required=False, description=text
        )
    return dg.Field(fields)


def _form_type(annotation: Any) -> Any:
    """Returns the type of a form's field: int, float, bool or a list of them."""
    if typing.get_origin(annotation) is list:
        return [_form_type(typing.get_args(annotation)[0])]
    plain = [kind for kind in (typing.get_args(annotation) or (annotation,)) if kind in (int, float, bool)]
    return plain[0]
