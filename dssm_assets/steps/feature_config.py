"""The steps of feature_config, step_config and training_config (all settings of a training run in one file).

Also checks the configuration of the towers without reading data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import yaml

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.features import fg_tables
from dssm_assets.core.features.expressions import SEQUENCE
from dssm_assets.core.features.spec import FgSpec
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec, tower_spec
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.statistics import feature_config as decide
from dssm_assets.core.statistics.bucketizer import BucketFeature, Bucketizer
from dssm_assets.steps.workspace import StepResult, Workspace, digests, each_day, window_days
from dssm_assets.storage.manifest import Manifest

FILE = "training_config.yaml"
_HEADS: Final = "model.poolings, num_heads"
"""Where faults are reported that depend on the exact width of the history."""


@each_day
def feature_config(workspace: Workspace, ds: str) -> StepResult:
    built_from = [workspace.need("feature_binning", ds), workspace.need("feature_counts", ds)]
    binning, counts = (workspace.tables.read(manifest) for manifest in built_from)
    spec, config = workspace.fg_spec, workspace.config
    excluded, function = config.features.exclude, config.features.hash_function
    table = decide.decide_feature_config(spec, config.statistics, binning, counts, exclude=excluded, hash_function=function)
    dropped = [row["feature"] for row in table.to_pylist() if "DROP IT" in (row["message"] or "")]
    manifest = workspace.write_table(fg_tables.FEATURE_CONFIG, ds, table, built_from)
    return StepResult(manifest, {"features_kept": table.num_rows - len(dropped), "features_dropped": dropped})


@each_day
def step_config(workspace: Workspace, ds: str) -> StepResult:
    """Plans the number of training steps, and the number of steps over which the learning rate decays."""
    window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
    table = decide.decide_step_config(sum(day.rows for day in window), workspace.config.training)
    return StepResult(workspace.write_table(fg_tables.STEP_CONFIG, ds, table, [window]))


def open_bucketizer(workspace: Workspace, ds: str) -> tuple[Bucketizer, list[Manifest]]:
    """Returns the bucketizer of a day, and the manifests of its inputs."""
    built_from = [workspace.need("feature_config", ds), workspace.need("feature_counts", ds)]
    config, counts = (workspace.tables.read(manifest) for manifest in built_from)
    return Bucketizer(config, counts), built_from


def tower_side_of(feature: BucketFeature) -> str:
    """Returns a feature's side in a tower: user, context or item; `sequence` for a sub-feature of the history."""
    return str(feature.side) if feature.sequence_name is None else SEQUENCE


def tower_features(bucketizer: Bucketizer) -> list[TowerFeature]:
    return [
        TowerFeature(
            name=feature.name,
            side=TowerSide(tower_side_of(feature)),
            embedding_name=feature.embedding_name,
            embedding_dim=feature.embedding_dim,
            num_embeddings=feature.num_embeddings,
            is_multi=feature.is_multi,
            is_weighted=bool(feature.is_weighted),
        )
        for feature in bucketizer.features
    ]


def indexed_features(bucketizer: Bucketizer, *sides: str) -> IndexedFeatures:
    """Returns the features of the given sides with their conversion to embedding indices."""
    chosen = [feature for feature in bucketizer.features if tower_side_of(feature) in sides]
    weighted = frozenset(feature.name for feature in chosen if feature.is_weighted)
    return IndexedFeatures(bucketizer.bucketize, [feature.name for feature in chosen], weighted)


@each_day
def training_config(workspace: Workspace, ds: str) -> StepResult:
    bucketizer, built_from = open_bucketizer(workspace, ds)
    steps = workspace.need("step_config", ds)
    config = workspace.config
    features = tower_features(bucketizer)
    spec = tower_spec(features, config.model)
    window = window_days(ds, config.window.days)
    document = {
        "evaluation_day": ds,
        "window": {"first_day": window[0], "last_day": window[-1]},
        "seed": config.seed,
        "steps": {row["feature"]: row["feature_info"] for row in workspace.tables.read(steps).to_pylist()},
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "negative_items": config.negative_items.model_dump(mode="json"),
        "towers": spec.model_dump(mode="json"),
    }
    text = yaml.safe_dump(document, sort_keys=False, width=120)
    manifest = workspace.artifacts.publish("training_config", ds, {FILE: text.encode()}, inputs=digests([*built_from, steps]))
    return StepResult(manifest, {"features": len(features)}, report_markdown=f"```yaml\n{text}```")


@dataclass(frozen=True)
class RunSettings:
    """The settings of a training run, read from the day's training_config. `first_day` is the first day of the window."""

    manifest: Manifest
    spec: TowerSpec
    model: Model
    training: Training
    seed: int
    plan: StepPlan
    first_day: str


def towers_of(workspace: Workspace, ds: str) -> RunSettings:
    """Returns the settings of a day's training run from its training_config."""
    manifest = workspace.need("training_config", ds)
    document = yaml.safe_load(workspace.artifacts.read_bytes(manifest, FILE))
    return RunSettings(
        manifest,
        TowerSpec.model_validate(document["towers"]),
        Model.model_validate(document["model"], extra="ignore"),  # a stored file may have keys of an older release
        Training.model_validate(document["training"], extra="ignore"),
        int(document["seed"]),
        decide.read_step_plan(document["steps"]),
        document["window"]["first_day"],
    )


def check_towers(spec: FgSpec, config: PipelineConfig) -> None:
    """Checks that the features, model and training sections fit together.

    Configured widths are exact. Widths that follow from the data count as small as possible: a vector is refused only if it is
    too narrow for any data.

    Raises:
        ConfigError: names all unknown features, missing embeddings and widths that are too small.
        SchemaError: names every sub-feature of a sequence without a countable vocabulary.
    """
    binning, counts = decide.least_statistics(spec)
    excluded, function = config.features.exclude, config.features.hash_function
    decided = decide.decide_feature_config(spec, config.statistics, binning, counts, exclude=excluded, hash_function=function)
    features = tower_features(Bucketizer(decided, counts))
    try:
        towers = tower_spec(features, config.model)
    except ConfigError as error:
        is_exact = _has_exact_history(spec, config, features)
        faults = [fault for fault in error.faults if is_exact or fault.where != _HEADS]
        if not faults:
            return
        raise ConfigError(faults) from error
    if config.training.svd_init is not None:
        from dssm_assets.core.training.closed_form.svd_init import svd_init_faults  # not at the top: it imports torch

        ConfigError.raise_if(svd_init_faults(towers, config.training.svd_init))


def _has_exact_history(spec: FgSpec, config: PipelineConfig, features: list[TowerFeature]) -> bool:
    names = {feature.embedding_name for feature in features if feature.side is TowerSide.SEQUENCE}
    exact = {
        feature.embedding_name
        for feature in (*spec.features, *spec.sequence_features)
        if feature.operator.embedding_dim
        or config.statistics.own_values([feature.embedding_name, feature.name], "embedding_dim")
    }
    return names <= exact
