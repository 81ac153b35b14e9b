"""The serving bundle of the tiny world: when it is not published, and that its settings are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError, PartitionMissingError, ProvenanceError
from dssm_assets.core.retrieval.vectors import to_lists
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.bundle.served_vectors import check_vectors
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.worlds import EVALUATION_DAY


def test_bundle_that_fails_a_check_is_not_published(
    world: worlds.BuiltWorld, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = open_workspace(world.copy(tmp_path / "world"))
    before, served_id = publish_bundle(good), PlainBundle(good).bundle_id
    bad = open_workspace(worlds.write_config(tmp_path / "world", {"serving": {"index": "hnsw", "min_index_recall": 1.0}}))
    monkeypatch.setattr("dssm_assets.core.retrieval.index.recall_at", lambda *_: {5: 0.99, 10: 0.98})
    result = publish_bundle(bad)
    failed = [found for found in result.checks if not found.is_passed]
    assert [found.name for found in failed] == ["index_recall"]
    assert "not published" in failed[0].description
    assert PlainBundle(bad).bundle_id == served_id
    assert result.manifest == before.manifest
    assert (result.facts["bundle_id"], result.facts["is_served"]) == ("none: not published", False)


def test_settings_of_the_serving_section_are_used(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    settings = {"index": "ivf", "keep_bundles": 2}
    workspace = open_workspace(world.copy(tmp_path / "world", {"serving": settings}))
    result = publish_bundle(workspace)
    assert PlainBundle(workspace).manifest["index"]["kind"] == "IVF"
    for filters in (["category"], ["stock"], []):
        changed = {"serving": {**settings, "filters": filters}}
        result = publish_bundle(open_workspace(worlds.write_config(tmp_path / "world", changed)))
    store = open_bundles(workspace.loaded)
    pointer = store.pointer()
    assert pointer is not None
    assert len(pointer.stored) == 2
    assert result.facts["previous_bundle"] == pointer.previous


def test_model_other_than_the_evaluated_one_is_refused(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    loaded = world.copy(tmp_path / "world", {"seed": 8})
    worlds.run_steps(loaded, ["training_config", "dssm_model"], [EVALUATION_DAY])
    workspace = open_workspace(loaded)
    before = open_bundles(workspace.loaded).pointer()
    with pytest.raises(
        ProvenanceError, match=rf"item_vectors/{EVALUATION_DAY}, input dssm_model/{EVALUATION_DAY}: .*digest now"
    ):
        publish_bundle(workspace)
    worlds.run_steps(loaded, ["item_vectors", "user_vectors"], [EVALUATION_DAY])
    with pytest.raises(ProvenanceError, match="hit_counts"):
        publish_bundle(workspace)
    assert open_bundles(workspace.loaded).pointer() == before


def test_bundle_without_a_hit_rate_is_refused(world: worlds.BuiltWorld, tmp_path: Any) -> None:
    workspace = open_workspace(world.copy(tmp_path / "world"))
    workspace.tables.partitions.remove("total_hit_rate", EVALUATION_DAY)
    with pytest.raises(PartitionMissingError, match="table total_hit_rate"):
        publish_bundle(workspace)


def test_bundle_without_items_is_refused() -> None:
    with pytest.raises(InputError, match="item vectors: expected one usable vector per id, got no item"):
        check_vectors("item", pa.array([], pa.string()), to_lists(np.zeros((0, 2), np.float32)))
