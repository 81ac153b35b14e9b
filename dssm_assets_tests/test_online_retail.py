"""The whole graph on a committed slice of real purchases with cancellations and closed days (CC0 Online Retail)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.steps.workspace import Workspace, days_between, open_workspace, window_days
from dssm_assets.storage.config_file import complete_config
from dssm_assets_tests import worlds

FIXTURE = Path(__file__).parent / "fixtures" / "online_retail"
FIRST, EVALUATED, WINDOW = "2011-11-22", "2011-12-06", 14


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
    "model": {"output_dim": 32, "hidden_units": [64], "num_sample": 256},
    "training": {"epochs": 4, "batch_size": 256},
    "evaluation": {"bootstrap_samples": 200},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    loaded = complete_config(parse_config(CONFIG), home=tmp_path_factory.mktemp("retail"))
    worlds.run_steps(loaded, worlds.DAILY, days_between(FIRST, EVALUATED))
    worlds.run_steps(loaded, worlds.WINDOWED, [EVALUATED])
    return open_workspace(loaded)


def test_cancellations_are_samples_but_never_positives(workspace: Workspace) -> None:
    days = window_days(EVALUATED, WINDOW)
    samples = [workspace.tables.read(manifest) for manifest in workspace.need_all("sample", days)]
    cancelled = sum(pc.sum(pc.equal(table.column("event"), "cancel")).as_py() or 0 for table in samples)
    positives = [workspace.tables.read(manifest) for manifest in workspace.need_all("positive_sample", days)]
    assert cancelled > 50
    assert {event for table in positives for event in pc.unique(table.column("event")).to_pylist()} == {"buy"}


def test_closed_days_are_empty_partitions(workspace: Workspace) -> None:
    saturday = workspace.need("behavior", "2011-11-26")
    assert dt.date(2011, 11, 26).weekday() == 5
    assert saturday.rows == 0
    assert workspace.need("positive_sample", "2011-11-26").rows == 0


def test_no_sample_sees_its_own_event(workspace: Workspace) -> None:
    stored = workspace.need("train_samples", EVALUATED)
    samples, history, users = (
        workspace.artifacts.map_table(stored, f"{name}.arrow") for name in ("samples", "history", "users")
    )
    end, user, when = (samples.column(name).to_numpy() for name in ("history_end", "user_index", "event_time_ms"))
    start = users.column("history_start").to_numpy()[user]
    times = history.column("event_time_ms").to_numpy()
    seen = end > start
    assert seen.mean() > 0.5
    assert (times[end[seen] - 1] < when[seen]).all()
    own_row = np.flatnonzero(end < users.column("history_end").to_numpy()[user])
    assert len(own_row) == len(end)
    assert (times[end] >= when).all()


def test_user_counts_equal_a_slow_count(workspace: Workspace) -> None:
    previous_day = "2011-12-05"
    features = workspace.tables.read(
        workspace.need("user_all_feature", previous_day), ["user_id", "buy_count_7d", "cancel_count_30d"]
    )
    log = [
        workspace.tables.read(m, ["user_id", "event"]).to_pandas()
        for m in workspace.need_all("behavior", window_days("2011-12-06", 7))
    ]
    bought: dict[int, int] = {}
    for day in log:
        for user, count in day[day.event == "buy"].user_id.value_counts().items():
            bought[user] = bought.get(user, 0) + count
    stored = dict(zip(features.column("user_id").to_pylist(), features.column("buy_count_7d").to_pylist(), strict=True))
    assert stored == {user: bought.get(user, 0) for user in stored}
    assert len(bought) > 50


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
    assert stored["hit_rate"] > 2 * 200 / 2447
