"""Features and configuration of the generated world: 30 numbers, 22 categories, 5 combinations, 2 bags.

Categories of more than MAX_VOCABULARY values, combinations and bags have hash buckets; other categories have a counted
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from dssm_assets.core import columns as col
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests.benchmarks.world import CATEGORIES, EVENTS, TAGS, World, categorical_columns, numeric_columns

MAX_VOCABULARY: Final = 1_000
"""A category of more values has hash buckets instead of a vocabulary."""
HASH_RATIO: Final = 5
CONTEXT_CATEGORIES: Final = (col.HOUR, col.WEEKDAY, "page")
COMBOS: Final = (
    ("user_combo_0", "user:user_cat_3", "user:user_cat_4"),
    ("user_combo_1", "user:user_cat_5", "user:user_cat_6"),
    ("item_combo_0", "item:item_cat_2", "item:item_cat_3"),
    ("item_combo_1", "item:item_cat_4", "item:item_cat_5"),
    ("context_combo", "context:hour", "context:page"),
)


def feature_definitions() -> dict[str, Any]:
    """Returns the fg.json of the world: 30 numbers, 22 categories, 5 combinations, 2 bags."""
    features: list[dict[str, Any]] = []
    for side in ("user", "item"):
        for name in numeric_columns(side):
            features.append(
                {"feature_name": name, "feature_type": "raw_feature", "expression": f"{side}:{name}", "default_value": ""}
            )
        for name, values in zip(categorical_columns(side), CATEGORIES[side], strict=True):
            size = {"hash_bucket_size": values * HASH_RATIO} if values > MAX_VOCABULARY else {}
            features.append({**_id(name, f"{side}:{name}"), "value_dim": 1, **size})
        features.append({**_id(f"{side}_tags", f"{side}:{side}_tags"), "hash_bucket_size": TAGS[side] * HASH_RATIO})
    features += [{**_id(f"request_{name}", f"context:{name}"), "value_dim": 1} for name in CONTEXT_CATEGORIES]
    for name, *expressions in COMBOS:
        combo = {"feature_name": name, "feature_type": "combo_feature", "expression": expressions, "value_dim": 1}
        features.append({**combo, "hash_bucket_size": 100_000})
    return {"features": features}


def pipeline_config(world: World, window_days: int) -> dict[str, Any]:
    """Returns the configuration of a pipeline over the world, in the form of the YAML file."""
    return {
        "name": "benchmark",
        "seed": world.seed,
        "calendar": {"start": world.day_before_log, "end": world.evaluation_day, "timezone": "UTC"},
        "tables": {
            "user": {"uri": "{data}/source/users.parquet"},
            "item": {"uri": "{data}/source/items.parquet"},
            "behavior": {
                "uri": "{data}/source/behavior",
                "layout": "ds_folders",
                "context_columns": ["page"],
                "allow_empty_days": True,
            },
        },
        "events": {"funnel": list(EVENTS), "positive": list(EVENTS)},
        "window": {"days": window_days, "history_days": window_days},
        "raw_features": {"statistic_days": [1, 7]},
        "features": {"fg": feature_definitions()},
        "training": {"num_threads": 1},
    }


def load_world(world: World, folder: Path, window_days: int) -> LoadedConfig:
    """Writes the configuration next to the source tables and loads it, with `folder/home` as home."""
    path = folder / f"window_{window_days}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(pipeline_config(world, window_days), sort_keys=False), encoding="utf-8")
    return load_config(path, folder / "home")


def _id(name: str, expression: str) -> Mapping[str, Any]:
    return {"feature_name": name, "feature_type": "id_feature", "expression": expression}
