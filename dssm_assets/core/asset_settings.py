"""Digests the settings that each asset's step reads. A stored partition with another digest is made again.

Settings of upstream assets are left out: when these change, the new inputs make the asset stale anyway.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any, Final

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.features.fg_files import ReadFile, rename_files

FG: Final = "features"
"""The settings `features`, together with the feature definitions in any file and the files that they name."""
START: Final = "calendar.start"
"""The first day. Rolling states begin with it, and histories, which are read across days, begin with it."""

_EVENT_SETTINGS: Final = ("tables.behavior", "events", "calendar.timezone")
_FIT: Final = ("model", "training", "statistics", FG, "seed")
_SAMPLES: Final = (
    "model.event_weights",
    "model.history",
    "model.min_history",
    "model.num_hard_sample",
    "model.recency_half_life_days",
    "model.sampler",
    "model.user_positive_mask",
    "training.validation_days",
)
_SCORES: Final = ("evaluation", "model", "channels", "window", "calendar.timezone", "seed")

READS: Final[Mapping[str, tuple[str, ...]]] = {
    "user_table": ("tables.user", "tables.behavior", "calendar.timezone"),
    "item_table": ("tables.item", "tables.behavior", "calendar.timezone"),
    "behavior_table": _EVENT_SETTINGS,
    "behavior": ("raw_features.preference_columns", "raw_features.history_columns", "calendar.timezone"),
    "user_activity": (START, "raw_features.statistic_days", "tables.behavior.value_columns"),
    "item_activity": (START, "raw_features.statistic_days", "tables.behavior.value_columns"),
    "pair_activity": (START, "raw_features.statistic_days"),
    "user_preferences": (START, "raw_features.preference_columns", "raw_features.preference_days", "events.positive"),
    "user_history": ("raw_features.history_columns", "events.positive"),
    "user_all_feature": (START, "raw_features", "events", "tables.behavior.value_columns", "calendar.timezone"),
    "item_all_feature": (START, "raw_features", "events", "tables.behavior.value_columns", "calendar.timezone"),
    "item_features_fg": (FG,),
    "user_features_fg": (FG,),
    "user_history_fg": (FG,),
    "sample": ("events", "tables.behavior.context_columns"),
    "sample_fg": (START, FG),
    "positive_sample": (),
    "numeric_value_counts": (FG,),
    "category_value_counts": (FG,),
    "training_window": (START, "window", "evaluation.span_days"),
    "feature_binning": ("window", "statistics"),
    "feature_counts": ("window",),
    "feature_config": ("statistics", FG),
    "step_config": ("training", "window"),
    "training_config": (*_FIT, "negative_items", "window"),
    "negative_items": ("negative_items", "window", "events"),
    "train_samples": (START, *_SAMPLES, "statistics", "negative_items", "window", "events", FG, "seed"),
    "dssm_model": (START, *_FIT, "evaluation.k"),
    "item_vectors": (FG, "evaluation.num_processes"),
    "user_vectors": (START, FG, "evaluation.num_processes", "window"),
    "ground_truth": ("evaluation", "events", "window"),
    "channel_weights": (START, *_SCORES, *_FIT),
    "hit_counts": (START, *_SCORES, "events", FG),
    "hit_rate_detail": (START, "evaluation", "model", "window", "seed"),
    "total_hit_rate": (START, "evaluation", "explore.item_columns", "gate", "window", "seed"),
    "shown": ("calendar.timezone",),
    "online_rates": ("evaluation.shown", "evaluation.k", "serving.variants", "calendar.timezone"),
}
"""Asset -> the sections and keys that its step reads. Assets that are not listed are only made on request."""

OWN: Final = frozenset({"evaluation.shown"})
"""Settings that count only where `READS` names them, not for readers of their section."""

HOW: Final = frozenset(
    {
        *(f"tables.{name}.{key}" for name in ("user", "item", "behavior") for key in ("uri", "storage_options")),
        "features.fg",
        "features.fg_path",
        "training.checkpoint_minutes",
        "training.device",
        "training.launcher",
        "training.num_processes",
        "training.num_threads",
        "training.shard_tables",
        "evaluation.num_processes",
        "evaluation.show_people",
        "explore.item_columns",
    }
)
"""Settings that change no rows: the places of data, the way the work is done, the parts that a report shows."""


def digest_settings(config: PipelineConfig, fg: Mapping[str, Any], read_file: ReadFile) -> dict[str, str]:
    """Returns asset -> digest of the settings that its step reads, defaults included.

    A null key counts as absent, so a new key with default null changes no digest.

    Args:
        read_file: reads a file that feature definitions name. Its content is digested, not its path.
    """
    given = config.model_dump(mode="json", exclude_none=True)
    by_content = rename_files(fg, cache(partial(_digest_file, read_file)))  # several features may name one file
    return {asset: _digest(given, by_content, keys) for asset, keys in READS.items()}


def _digest_file(read_file: ReadFile, name: str) -> str:
    try:
        return hashlib.sha256(read_file(name)).hexdigest()
    except OSError:
        return name  # the step that makes features reports the unreadable file


def _digest(given: Mapping[str, Any], fg: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    read = {key: value for key in sorted(set(keys) - HOW) for value in _find(given, key.split("."))}
    parts = {key: _without(value, key) for key, value in read.items()} | ({"fg": fg} if FG in keys else {})
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _find(given: Any, path: list[str]) -> Iterator[Any]:
    for name in path:
        if not isinstance(given, Mapping) or name not in given:
            return
        given = given[name]
    yield given


def _without(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without(inner, f"{where}.{name}") for name, inner in value.items() if f"{where}.{name}" not in HOW | OWN}
