"""The whole graph on a committed slice of real purchases with cancellations and closed days (CC0 Online Retail)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.steps.workspace import Workspace, days_between, open_workspace
from dssm_assets.storage.config_file import complete_config
from dssm_assets_tests import worlds

FIXTURE = Path(__file__).parent / "fixtures" / "online_retail"
FIRST, EVALUATED, WINDOW = "2011-11-29", "2011-12-06", 7


def _id(name: str, expression: str, **more: Any) -> dict[str, Any]:
    return {"feature_name": name, "feature_type": "id_feature", "value_dim": 1, "expression": expression, **more}


CONFIG = {
    "name": "retail",
    "calendar": {"start": dt.date.fromisoformat(FIRST), "end": dt.date.fromisoformat(EVALUATED), "timezone": "Europe/London"},
    "tables": {
        "user": {"uri": str(FIXTURE / "users.parquet")},
        "item": {"uri": str(FIXTURE / "items.parquet")},
        "behavior": {
            "uri": str(FIXTURE / "behavior.parquet"),
            "layout": "time_column",
            "value_columns": ["quantity"],
            "allow_empty_days": True,
        },
    },
    "events": {"funnel": ["buy", "cancel"], "positive": ["buy"]},
    "window": {"days": WINDOW},
    "raw_features": {"preference_columns": ["stock_code"], "history_columns": ["stock_code"]},
    "features": {
        "fg": {
            "features": [
                _id("country", "user:country"),
                _id("item", "item:item_id"),
                {"feature_name": "price", "feature_type": "raw_feature", "expression": "item:unit_price", "default_value": ""},
                {
                    "feature_name": "user_buys",
                    "feature_type": "raw_feature",
                    "expression": "user:buy_count_30d",
                    "default_value": "",
                },
                {
                    "feature_type": "sequence_feature",
                    "sequence_name": "history",
                    "sequence_length": 50,
                    "sequence_delim": ";",
                    "features": [_id("item", "user:item_ids", embedding_name="item")],
                },
            ],
            "reserves": [],
        }
    },
    "statistics": {"embedding_dim": {"item": 32}},
    "model": {"output_dim": 32, "hidden_units": [64], "num_sample": 128},
    "training": {"epochs": 4, "batch_size": 256},
    "evaluation": {"bootstrap_samples": 200},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    loaded = complete_config(parse_config(CONFIG), home=tmp_path_factory.mktemp("retail"))
    worlds.run_steps(loaded, worlds.DAILY, days_between(FIRST, EVALUATED))
    worlds.run_steps(loaded, worlds.WINDOWED, [EVALUATED])
    return open_workspace(loaded)


def test_closed_days_are_empty_partitions(workspace: Workspace) -> None:
    saturday = workspace.need("behavior", "2011-12-03")
    assert dt.date(2011, 12, 3).weekday() == 5
    assert saturday.rows == 0
    assert workspace.need("positive_sample", "2011-12-03").rows == 0


def test_the_hit_rate_equals_a_slow_count(workspace: Workspace) -> None:
    detail = workspace.tables.read(workspace.need("hit_rate_detail", EVALUATED)).to_pylist()
    truth = {row["user_id"]: row for row in workspace.tables.read(workspace.need("ground_truth", EVALUATED)).to_pylist()}
    hits = total = 0
    for row in detail:
        gt = truth[row["user_id"]]
        if gt["is_warm_user"]:
            warm = {item for item, is_warm in zip(gt["gt_items"], gt["gt_is_warm"], strict=True) if is_warm}
            hits += len(warm & set(row["topk_ids"]))
            total += len(warm)
    rows = workspace.tables.read(workspace.need("total_hit_rate", EVALUATED)).to_pylist()
    (stored,) = [r for r in rows if (r["scorer"], r["scope"], r["population"], r["k"]) == ("model", "all", "warm", 200)]
    assert (stored["hits"], stored["truth_count"]) == (hits, total)
    assert stored["hit_rate"] == hits / total
    assert stored["hit_rate"] > 2 * 200 / workspace.need("item_vectors", EVALUATED).rows, "twice that of a random list"
