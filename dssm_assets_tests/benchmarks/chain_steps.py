"""The daily chain of one evaluation day on a generated world: its configuration, its steps, and one step in a process.

    daily      every daily table over the day before the log and all days of the log, each in one run, as in a backfill
    windowed   everything from training_window to serving_bundle, for the last day of the log

The chain has all steps of the graph. Towers are small and trained for one epoch: the benchmark measures the cost of the
tables, not of a good model.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.benchmarks.process_cost import cpu_seconds
from dssm_assets_tests.benchmarks.world import World, write_world
from dssm_assets_tests.benchmarks.world_features import feature_definitions, pipeline_config

STATISTIC_DAYS: Final = [1, 7, 30]
_HISTORY: Final = {
    "feature_type": "sequence_feature",
    "sequence_name": "history",
    "sequence_length": 50,
    "sequence_delim": ";",
    "oldest_first": True,
    "features": [
        {"feature_name": "item", "feature_type": "id_feature", "expression": "user:item_ids", "embedding_name": "item"},
    ],
}


@dataclass(frozen=True)
class ChainStep:
    """A step of the graph by name, and whether it builds a window (once) or days."""

    module: str
    name: str
    is_windowed: bool


def chain_steps() -> list[ChainStep]:
    """Returns the steps of the graph that jobs run, in topological order, daily steps first."""
    from dssm_assets.defs.asset_table import all_rows

    rows = (row for row in all_rows() if not row.is_on_request)
    steps = [ChainStep(row.step.module, row.name, row.is_windowed) for row in rows]
    return sorted(steps, key=lambda step: step.is_windowed)


def chain_config(world: World, window: int, engine_memory: str, statistic_days: Sequence[int]) -> dict[str, Any]:
    """Returns the configuration of the chain: the world's 59 features, statistics of behavior, item ids and histories."""
    raw = pipeline_config(world, window)
    _, some, most = statistic_days
    features: list[dict[str, Any]] = [
        *feature_definitions()["features"],
        {"feature_name": "item", "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1},
        {"feature_name": "user_clicks_7d", "feature_type": "raw_feature", "expression": f"user:click_count_{some}d"},
        {"feature_name": "item_clicks_7d", "feature_type": "raw_feature", "expression": f"item:click_count_{some}d"},
        {"feature_name": "user_items_30d", "feature_type": "raw_feature", "expression": f"user:click_distinct_items_{most}d"},
        _HISTORY,
    ]
    raw["calendar"]["end"] = world.log_days[-1]
    raw["raw_features"] = {
        "statistic_days": list(statistic_days),
        "preference_columns": ["item_cat_2"],
        "preference_days": most,
    }
    raw["features"] = {"fg": {"features": features}}
    raw["model"] = {"output_dim": 32, "hidden_units": [64], "num_sample": 1024}
    raw["training"] = {"epochs": 1, "batch_size": 4096, "num_threads": 1}
    raw["evaluation"] = {"bootstrap_samples": 100}
    raw["duckdb"] = {"memory": engine_memory}
    return raw


def write_chain(
    world: dict[str, Any], folder: str, window: int, engine_memory: str, statistic_days: Sequence[int] = STATISTIC_DAYS
) -> None:
    """Writes the source tables and the configuration into the folder."""
    made, at = World(**world), Path(folder)
    write_world(made, at)
    text = yaml.safe_dump(chain_config(made, window, engine_memory, statistic_days), sort_keys=False)
    (at / "chain.yaml").write_text(text, encoding="utf-8")


def run_steps(world: dict[str, Any], folder: str, steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs steps one after the other in this process; returns the cost of each. A low hit rate is no error."""
    loaded = load_config(Path(folder) / "chain.yaml", Path(folder) / "home")
    made, workspace = World(**world), open_workspace(loaded)
    return [_run(workspace, made, ChainStep(**step)) for step in steps]


def _run(workspace: Workspace, world: World, step: ChainStep) -> dict[str, Any]:
    days = world.log_days[-1:] if step.is_windowed else [world.day_before_log, *world.log_days]
    run = getattr(importlib.import_module(f"dssm_assets.{step.module}"), step.name)
    rows = size = 0
    begin = cpu_seconds()
    for result in run(workspace, days):
        rows += result.manifest.rows
        size += result.manifest.size_bytes
        failed = [check for check in result.checks if check.is_blocking and not check.is_passed]
        if failed and step.name != "total_hit_rate":
            raise RuntimeError(f"{step.name}: {failed[0].description}")
    return {"name": step.name, "days": len(days), "rows": rows, "bytes": size, "cpu_s": cpu_seconds() - begin}
