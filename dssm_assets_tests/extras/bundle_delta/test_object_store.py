"""Deltas on a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dssm_assets.extras.bundle_delta.delta import publish_delta
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.service.engine.id_rows import UnknownIdError
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.layout import serving_root
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET
from dssm_assets_tests.extras.bundle_delta.test_delta import FILTERS, TODAY, change_sources, copy_of
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle


def test_delta_of_a_bundle_is_served_from_the_store_and_rolled_back(
    options: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The digests are those of the same delta on a local disk."""
    served = tmp_path / "served"
    publish_bundle(open_workspace(worlds.built_world(tmp_path_factory).copy(served, FILTERS)))
    local = copy_of(served, tmp_path / "local")
    change_sources(local)
    expected = publish_delta(local, TODAY)
    root = f"s3://{BUCKET}/delta"
    remote = copy_of(served, tmp_path / "remote", {**FILTERS, "storage": {"root": root, "options": options}})
    fs = remote.tables.partitions.fs
    fs.put(f"{tmp_path}/remote/home/tables/", f"{root}/", recursive=True)
    store = BundleStore(serving_root(root), options)
    before = store.pointer()
    assert before is not None, "the whole bundle is served from the store"
    live = LiveEngine(serving_root(root), options)
    change_sources(remote)
    result = publish_delta(remote, TODAY)
    assert result.counts == expected.counts
    assert expected.published is not None, "the sources have changed"
    assert result.published is not None
    assert result.published.bundle_id == expected.published.bundle_id
    store.fetch(result.published.bundle_id)
    assert "_staging" not in " ".join(fs.find(root))
    assert live.refresh()
    assert live.engine.bundle.bundle_id == result.published.bundle_id
    assert live.engine.similar_items("z_00").item_ids
    assert store.rollback().bundle_id == before.bundle_id
    assert live.refresh()
    with pytest.raises(UnknownIdError):
        live.engine.similar_items("z_00")
