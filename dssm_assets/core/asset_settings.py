"""The settings that each asset's step reads, and a digest of them: a partition that was made by others is made again.

What an asset gets through its inputs does not count: where those are made again, so is the asset.

Belongs here: which keys of the configuration decide what is in a partition. Does not belong here: recording the digest
(`storage/partitions.py`), comparing it (`steps/workspace.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dssm_assets.core.config.pipeline import PipelineConfig

FG: Final = "features"
"""Stands for the feature definitions too, wherever they are written."""

_EVENT_SETTINGS: Final = ("tables.behavior", "events", "calendar.timezone")
_FIT: Final = ("model", "training", "statistics", FG, "seed")
_SCORES: Final = ("evaluation", "model", "channels", "window", "calendar.timezone", "seed")

READS: Final[Mapping[str, tuple[str, ...]]] = {
    "user_table": ("tables.user", "tables.behavior", "calendar.timezone"),
    "item_table": ("tables.item", "tables.behavior", "calendar.timezone"),
    "behavior_table": _EVENT_SETTINGS,
    "behavior": ("raw_features.preference_columns", "raw_features.history_columns", "calendar.timezone"),
    "user_activity": ("raw_features.statistic_days", "tables.behavior.value_columns"),
    "item_activity": ("raw_features.statistic_days", "tables.behavior.value_columns"),
    "pair_activity": ("raw_features.statistic_days",),
    "user_preferences": ("raw_features.preference_columns", "raw_features.preference_days", "events.positive"),
    "user_history": ("raw_features.history_columns", "events.positive"),
    "user_all_feature": ("raw_features", "events", "tables.behavior.value_columns", "calendar.timezone"),
    "item_all_feature": ("raw_features", "events", "tables.behavior.value_columns", "calendar.timezone"),
    "item_features_fg": (FG,),
    "user_features_fg": (FG,),
    "user_history_fg": (FG,),
    "sample": ("events", "tables.behavior.context_columns"),
    "sample_fg": (FG,),
    "positive_sample": (),
    "numeric_value_counts": (FG,),
    "category_value_counts": (FG,),
    "training_window": ("window", "evaluation.span_days"),
    "feature_binning": ("window", "statistics"),
    "feature_counts": ("window",),
    "feature_config": ("statistics", FG),
    "step_config": ("training", "window"),
    "training_config": (*_FIT, "negative_items", "window"),
    "negative_items": ("negative_items", "window", "events"),
    "train_samples": ("model", "training", "statistics", "negative_items", "window", "events", FG, "seed"),
    "dssm_model": (*_FIT, "evaluation.k"),
    "item_vectors": (FG, "evaluation.num_processes"),
    "user_vectors": (FG, "evaluation.num_processes", "window"),
    "ground_truth": ("evaluation", "events", "window"),
    "channel_weights": (*_SCORES, *_FIT),
    "hit_counts": (*_SCORES, "events", FG),
    "hit_rate_detail": ("evaluation", "model", "window", "seed"),
    "total_hit_rate": ("evaluation", "gate", "window", "seed"),
}
"""Asset -> the sections and keys that its step reads. Other assets are made when they are asked for."""

NOT_READ: Final = frozenset({"name", "gate", "serving", "storage", "platform", "engine", "spark", "duckdb"})
"""Sections that decide nothing about the rows of the assets in READS, the gate's verdict aside."""

HOW: Final = frozenset(
    {
        "tables.user.uri",
        "tables.user.storage_options",
        "tables.item.uri",
        "tables.item.storage_options",
        "tables.behavior.uri",
        "tables.behavior.storage_options",
        "features.fg",
        "features.fg_path",
        "training.checkpoint_minutes",
        "training.device",
        "training.launcher",
        "training.logits_chunk_rows",
        "training.num_processes",
        "training.num_threads",
        "training.shard_tables",
        "evaluation.num_processes",
    }
)
"""Where data lies and how the work is done: a folder that was moved makes no other rows."""


def digest_settings(config: PipelineConfig, fg: Mapping[str, Any]) -> dict[str, str]:
    """Returns asset -> a digest of the settings that it reads.

    Values that are the default do not count, so that a key that a later version adds changes nothing.

    Args:
        config: the configuration.
        fg: the feature definitions.
    """
    given = config.model_dump(mode="json", exclude_defaults=True)
    return {asset: _digest(given, fg, keys) for asset, keys in READS.items()}


def _digest(given: Mapping[str, Any], fg: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    read = {key: value for key in sorted(set(keys) - HOW) for value in _find(given, key.split("."))}
    parts = {key: _without(value, key) for key, value in read.items()} | ({"fg": fg} if FG in keys else {})
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _find(given: Any, path: list[str]) -> Iterator[Any]:
    """Yields the value at a path, if there is one."""
    for name in path:
        if not isinstance(given, Mapping) or name not in given:
            return
        given = given[name]
    yield given


def _without(value: Any, where: str) -> Any:
    """Returns a value without the keys that do not count."""
    if not isinstance(value, Mapping):
        return value
    return {name: _without(inner, f"{where}.{name}") for name, inner in value.items() if f"{where}.{name}" not in HOW}
