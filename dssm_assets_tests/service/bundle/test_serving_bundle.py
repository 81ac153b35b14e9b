"""The serving bundle of the tiny world: its files, and the day whose end its vectors describe."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import VECTORS, PlainBundle, publish_bundle
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOW_DAYS

PREVIOUS_DAY = DAYS[-2]


@pytest.fixture(scope="module")
def served(world: worlds.BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, StepResult]:
    workspace = open_workspace(world.copy(tmp_path_factory.mktemp("served") / "world"))
    return workspace, publish_bundle(workspace)


def test_bundle_has_the_documented_files_and_manifest(served: tuple[Workspace, StepResult]) -> None:
    opened = PlainBundle(served[0])
    assert sorted(opened.manifest["files"]) == [
        "channels.json",
        "feature_config.parquet",
        "feature_counts.parquet",
        "fg.json",
        "item_channels.arrow",
        "item_ids.arrow",
        "item_index.faiss",
        "item_tower.onnx",
        "item_vectors.arrow",
        "own_items.arrow",
        "popular_items.arrow",
        "towers.json",
        "user_inputs.arrow",
        "user_tower.onnx",
        "user_vectors.arrow",
    ]
    found = {
        key: opened.manifest[key] for key in ("format", "name", "ds", "features_as_of", "similarity", "dims", "users", "items")
    }
    assert found == {
        "format": 2,
        "name": "tiny",
        "ds": EVALUATION_DAY,
        "features_as_of": EVALUATION_DAY,
        "similarity": "COSINE",
        "dims": 8,
        "users": len(worlds.users()),
        "items": 20,
    }
    # Group a interacts with a, group b with b: at 10 everything is found (test_tiny_world).
    assert opened.manifest["hit_rate"]["10"]["hit_rate"] == 1.0
    assert opened.manifest["index"] == {
        "kind": "Flat",
        "parameters": {},
        "recall_at": {"5": 1.0, "10": 1.0},
        "recall_users": 12,
    }
    assert opened.manifest["items_not_trained_on"] == 0


def test_tables_share_row_order_and_the_index_returns_rows(served: tuple[Workspace, StepResult]) -> None:
    opened = PlainBundle(served[0])
    ids, vectors = opened.table("item_ids.arrow"), opened.table("item_vectors.arrow")
    assert (
        ids.column("item_id").to_pylist()
        == vectors.column("item_id").to_pylist()
        == sorted(r["item_id"] for r in worlds.item_rows())
    )
    assert ids.column("row").to_pylist() == list(range(20))
    assert vectors.schema.field("item_tower_emb").type == pa.list_(pa.float32(), 8)
    index = faiss.read_index(f"{opened.folder}/item_index.faiss")
    users = opened.vectors("user")
    assert sorted(users) == sorted(worlds.users())
    _, rows = index.search(np.array(list(users.values()), np.float32), 10)
    for user, found in zip(users, rows, strict=True):
        assert {ids.column("item_id")[int(row)].as_py()[0] for row in found} == {user[0]}
    for side in ("user", "item"):
        np.testing.assert_allclose(np.linalg.norm(list(opened.vectors(side).values()), axis=1), 1, rtol=1e-5)


def test_popular_items_are_those_of_the_window_that_ends_on_the_day(served: tuple[Workspace, StepResult]) -> None:
    days = range(len(DAYS) - WINDOW_DAYS, len(DAYS))
    counts = Counter(item for day in days for user in worlds.users() for item in worlds.bought(user, day))
    expected = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    popular = PlainBundle(served[0]).table("popular_items.arrow").to_pylist()
    assert [(row["item_id"], row["count"]) for row in popular] == expected


def test_vectors_differ_from_the_evaluated_ones_only_by_including_the_evaluation_day(
    served: tuple[Workspace, StepResult], world: worlds.BuiltWorld, tmp_path: Any
) -> None:
    """Without the tables of the day, the same code computes the evaluated vectors, bit for bit, and logs the day."""
    loaded = world.copy(tmp_path / "previous")
    lines: list[str] = []
    workspace = open_workspace(loaded, log=lines.append)
    workspace.tables.partitions.remove("user_history_fg", EVALUATION_DAY)
    publish_bundle(workspace)
    previous, day = PlainBundle(workspace), PlainBundle(served[0])
    assert previous.manifest["features_as_of"] == PREVIOUS_DAY
    assert any(
        f"user_history_fg of {EVALUATION_DAY} are not materialized: lists are as of the end of {PREVIOUS_DAY}" in line
        for line in lines
    )
    assert f"user_features_fg/{PREVIOUS_DAY}" in previous.manifest["inputs"]
    assert f"user_features_fg/{EVALUATION_DAY}" in day.manifest["inputs"]
    for side in ("user", "item"):
        stored = workspace.tables.read(workspace.need(f"{side}_vectors", EVALUATION_DAY)).to_pylist()
        assert previous.vectors(side) == {row[f"{side}_id"]: row[VECTORS[side]] for row in stored}
    # Every user buys on every day, so every history has grown.
    changed = {
        user
        for user, vector in day.vectors("user").items()
        if not np.allclose(vector, previous.vectors("user")[user], atol=1e-6)
    }
    assert changed == set(worlds.users())


def test_partition_records_the_published_bundle(served: tuple[Workspace, StepResult]) -> None:
    workspace, result = served
    opened = PlainBundle(workspace)
    manifest = workspace.need("serving_bundle", EVALUATION_DAY)
    assert manifest == result.manifest
    assert manifest.facts == {"bundle_id": opened.bundle_id, "is_served": True}
    assert json.loads(workspace.artifacts.read_bytes(manifest, "manifest.json")) == opened.manifest
    assert dict(manifest.inputs) == opened.manifest["inputs"]
    assert {key: workspace.need(*key.split("/")).digest for key in manifest.inputs} == dict(manifest.inputs)
    assert [(check.name, check.is_passed) for check in result.checks] == [("exported_towers", True), ("index_recall", True)]
    assert result.facts["bundle_id"] == opened.bundle_id
    assert opened.bundle_id in str(result.report_markdown)


def test_same_inputs_give_the_same_bundle(
    served: tuple[Workspace, StepResult], world: worlds.BuiltWorld, tmp_path: Any
) -> None:
    again = open_workspace(world.copy(tmp_path / "again"))
    publish_bundle(again)
    assert PlainBundle(again).bundle_id == PlainBundle(served[0]).bundle_id
