"""Checks of the towers that need no data: what is wrong with them whatever the statistics of a window are."""

from __future__ import annotations

from typing import Final

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.features.spec import FgSpec
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.feature_config import decide_feature_config, least_statistics
from dssm_assets.steps.feature_config import tower_features

_HEADS: Final = "model.poolings, num_heads"
"""Place of the faults that depend on the exact width of the history."""


def check_towers(spec: FgSpec, config: PipelineConfig) -> None:
    """Checks that features, model and training sections go together.

    Widths that are configured are exact. The others count with the least width that their policy gives, so that vectors which are
    too narrow for the widths of the data are refused only where they are too narrow for every data.

    Raises:
        ConfigError: naming every unknown feature, every embedding that is not there, every width that is too small.
        SchemaError: naming every sub-feature of a sequence whose vocabulary cannot be counted.
    """
    binning, counts = least_statistics(spec)
    excluded, function = config.features.exclude, config.features.hash_function
    decided = decide_feature_config(spec, config.statistics, binning, counts, exclude=excluded, hash_function=function)
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
    """Returns whether the widths of all sub-features of the history are configured."""
    names = {feature.embedding_name for feature in features if feature.side is TowerSide.SEQUENCE}
    exact = {
        feature.embedding_name
        for feature in (*spec.features, *spec.sequence_features)
        if feature.operator.embedding_dim
        or config.statistics.own_values([feature.embedding_name, feature.name], "embedding_dim")
    }
    return names <= exact
