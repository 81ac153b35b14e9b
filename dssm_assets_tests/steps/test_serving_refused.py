"""The serving bundle of the tiny world: what is never published, and that its settings are used."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.errors import PartitionMissingError, ProvenanceError
from dssm_assets.steps.serving import bundle_store
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.bundles import Opened, make
from dssm_assets_tests.worlds import EVALUATION_DAY


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> worlds.BuiltWorld:
    return worlds.built_world(tmp_path_factory)


REFUSED = {
    "exported_towers": {"max_tower_difference": 1e-30},
    "index_recall": {"index": "hnsw", "min_index_recall": 1.0},
}


@pytest.mark.parametrize("check", REFUSED)
def test_a_bundle_that_fails_a_check_is_not_published(
    check: str, world: worlds.BuiltWorld, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = open_workspace(world.copy(tmp_path / "world"))
    before, standing = make(good), Opened(good).bundle_id
    bad = open_workspace(worlds.write_config(tmp_path / "world", {"serving": REFUSED[check]}))
    if check == "index_recall":
        monkeypatch.setattr("dssm_assets.core.retrieval.index.recall_at", lambda *_: {5: 0.99, 10: 0.98})
    result = make(bad)
    failed = [found for found in result.checks if not found.is_passed]
    assert [found.name for found in failed] == [check]
    assert "not published" in failed[0].description
    assert Opened(bad).bundle_id == standing
    assert result.manifest == before.manifest
    assert (result.facts["bundle_id"], result.facts["is_served"]) == ("none: not published", False)


def test_settings_of_the_section_are_used(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    settings = {"index": "ivf", "recall_users": 3, "golden_rows": 2, "keep_bundles": 2}
    workspace = open_workspace(world.copy(tmp_path / "world", {"serving": settings}))
    result = make(workspace)
    opened = Opened(workspace)
    assert (opened.manifest["index"]["kind"], opened.manifest["index"]["recall_users"]) == ("IVF", 3)
    assert opened.manifest["towers"] == {"user tower": {"golden_rows": 2}, "item tower": {"golden_rows": 2}}
    for dims in (9, 10, 11):
        changed = {"serving": {**settings, "golden_rows": dims}}
        result = make(open_workspace(worlds.write_config(tmp_path / "world", changed)))
    store = bundle_store(workspace)
    pointer = store.pointer()
    assert pointer is not None
    assert len(pointer.stored) == 2
    assert result.facts["previous_bundle"] == pointer.previous


def test_a_model_that_is_not_the_evaluated_one_is_never_shipped(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    loaded = world.copy(tmp_path / "world", {"seed": 8})
    worlds.materialize(loaded, ["training_config", "dssm_model"], [EVALUATION_DAY])
    workspace = open_workspace(loaded)
    before = bundle_store(workspace).pointer()
    with pytest.raises(ProvenanceError, match=rf"item_vectors/{EVALUATION_DAY}, input dssm_model/{EVALUATION_DAY}"):
        make(workspace)
    worlds.materialize(loaded, ["item_vectors", "user_vectors"], [EVALUATION_DAY])
    with pytest.raises(ProvenanceError, match="hit_counts"):
        make(workspace)
    assert bundle_store(workspace).pointer() == before


def test_without_a_hit_rate_there_is_no_bundle(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    workspace = open_workspace(world.copy(tmp_path / "world"))
    workspace.tables.partitions.fs.rm(f"{workspace.tables.partitions.root}/total_hit_rate", recursive=True)
    with pytest.raises(PartitionMissingError, match="table total_hit_rate"):
        make(workspace)
