"""The asset `vector_store` of the tiny world: what it stores, what deltas and rollbacks change, and when nothing changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, PartitionMissingError, StorageError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, job_assets
from dssm_assets.extras.vector_stores import publish, testing
from dssm_assets.extras.vector_stores.bundle_rows import BundleRows
from dssm_assets.extras.vector_stores.publish import on_cleaned, on_served, vector_store
from dssm_assets.extras.vector_stores.store import StoredVectors, VectorStore, open_configured, open_store
from dssm_assets.extras.vector_stores.testing import to_rows, vectors_of
from dssm_assets.installed_extras import load_extra
from dssm_assets.service.bundle.bundle_store import Pointer, open_bundles
from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.vector_stores.made_deltas import add_delta
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.service.bundles import write_manifest
from dssm_assets_tests.worlds import EVALUATION_DAY

ITEM, USER = VectorTable.ITEM, VectorTable.USER
SETTINGS = {"serving": {"filters": ["category", "stock"]}, "vector_store": {"tables": ["item", "user"]}}
OTHER = "2024-01-13-cccccccccccc"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a world with a bundle and its vectors in the default store; tests copy it."""
    folder = tmp_path_factory.mktemp("stored") / "world"
    workspace = open_workspace(worlds.built_world(tmp_path_factory).copy(folder, SETTINGS))
    publish_bundle(workspace)
    make(workspace)
    return folder


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(world, tmp_path / "world")
    return open_workspace(worlds.write_config(tmp_path / "world", SETTINGS))


def make(workspace: Workspace) -> StepResult:
    (result,) = vector_store(workspace, [EVALUATION_DAY])
    return result


def open_store_of(workspace: Workspace) -> VectorStore:
    return open_configured(workspace.loaded)


def read_all(workspace: Workspace, table: VectorTable) -> dict[str, list[float]]:
    """Returns id -> vector of the served version."""
    bundle, store = PlainBundle(workspace), open_store_of(workspace)
    stored = store.open(table, store.find_served() or "")
    found = stored.read(pa.array([*bundle.vectors(table), "z_00"]))
    assert stored.count() == found.num_rows
    return dict(zip(found.column(f"{table}_id").to_pylist(), vectors_of(found).tolist(), strict=True))


def publish_rows(store: VectorStore, version: str) -> None:
    testing.publish(store, version, testing.item_rows(5), testing.user_rows(["u"]))


def test_the_store_has_the_vectors_of_the_bundle(workspace: Workspace) -> None:
    bundle, store = PlainBundle(workspace), open_store_of(workspace)
    assert (store.find_versions(), store.find_served()) == ({bundle.bundle_id: bundle.bundle_id}, bundle.bundle_id)
    assert {table: read_all(workspace, table) for table in (ITEM, USER)} == {
        table: bundle.vectors(table) for table in (ITEM, USER)
    }
    (row,) = store.open(ITEM, bundle.bundle_id).read(pa.array(["b_01"])).to_pylist()
    (item,) = (one for one in worlds.item_rows() if one["item_id"] == "b_01")
    assert (row["category"], row["stock"]) == (item["category"], item["stock"])
    assert (row["ds"], row["model_digest"]) == (EVALUATION_DAY, bundle.manifest["inputs"][f"dssm_model/{EVALUATION_DAY}"])


def test_the_check_tells_what_was_compared(workspace: Workspace) -> None:
    result = make(workspace)
    items, users = (len(PlainBundle(workspace).vectors(side)) for side in ("item", "user"))
    (check,) = result.checks
    assert (check.name, check.is_passed) == ("stored_vectors", True)
    assert check.facts == {
        "item rows": items,
        "item rows compared": items,
        "item recall@200": 1.0,
        "user rows": users,
        "user rows compared": users,
    }
    assert result.facts["is_served"]
    assert "password" not in str(result.facts)


def test_a_run_in_dagster_has_the_check_in_the_ui(workspace: Workspace) -> None:
    instance = dg.DagsterInstance.ephemeral()
    worlds.materialize(workspace.loaded, ["vector_store"], [EVALUATION_DAY], instance)
    key = dg.AssetCheckKey(dg.AssetKey("vector_store"), "stored_vectors")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=2)
    assert record.status.value == "SUCCEEDED"


def test_jobs_make_it_where_the_configuration_has_the_section(workspace: Workspace) -> None:
    assert "vector_store" not in job_assets(all_rows(), PUBLISH)
    assert job_assets(all_rows(workspace.config), PUBLISH)[-1] == "vector_store"


def test_a_delta_writes_the_rows_that_it_changes_and_a_rollback_too(workspace: Workspace) -> None:
    before, lines = read_all(workspace, ITEM), list[str]()
    width = len(before["a_00"])
    add_delta(workspace, a_00=np.arange(width), b_01=-np.arange(width))
    on_served(workspace.loaded, lines.append)
    after = read_all(workspace, ITEM)
    assert {name for name in before if before[name] != after[name]} == {"a_00", "b_01"}
    assert after == PlainBundle(workspace).vectors(ITEM)
    assert [line.partition(": ")[2] for line in lines] == ["2 item rows written, 0 removed"], "users did not change"
    open_bundles(workspace.loaded).rollback()
    on_served(workspace.loaded, lines.append)
    assert read_all(workspace, ITEM) == before
    on_served(workspace.loaded, lines.append)
    assert len(lines) == 2, "nothing was left to do"


def test_a_delta_that_is_served_while_a_version_is_written_is_followed_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular, width = publish._compare, len(read_all(workspace, ITEM)["a_00"])

    def compare(*given: Any) -> Any:
        if len(open_bundles(workspace.loaded).pointer().stored) == 1:
            add_delta(workspace, a_00=np.arange(width))
        return regular(*given)

    monkeypatch.setattr(publish, "_compare", compare)
    assert make(workspace).checks[0].is_passed
    served = PlainBundle(workspace)
    assert open_store_of(workspace).find_versions() == {served.manifest["delta"]["base"]: served.bundle_id}
    assert read_all(workspace, ITEM) == served.vectors(ITEM)
    assert read_all(workspace, ITEM)["a_00"] == list(range(width))


def test_a_table_that_is_added_to_the_configuration_is_written_with_the_next_delta(workspace: Workspace) -> None:
    folder = workspace.loaded.home.parent
    fewer = open_workspace(worlds.write_config(folder, SETTINGS | {"vector_store": {"tables": ["item"]}}))
    make(fewer)
    store, bundle_id = open_store_of(fewer), PlainBundle(fewer).bundle_id
    with pytest.raises(PartitionMissingError, match="table user"):
        store.open(USER, bundle_id)
    add_delta(workspace, a_00=np.ones(len(read_all(fewer, ITEM)["a_00"])))
    on_served(worlds.write_config(folder, SETTINGS), print)
    assert read_all(workspace, USER) == PlainBundle(workspace).vectors(USER)


def test_without_the_store_a_rollback_says_what_is_served_and_what_to_do(workspace: Workspace) -> None:
    loaded = worlds.write_config(workspace.loaded.home.parent, SETTINGS | {"vector_store": {"uri": "qdrant://127.0.0.1:1"}})
    bundle_id = PlainBundle(workspace).bundle_id
    expected = (
        f"expected the vectors of bundle {bundle_id}, which is served all the same.*To fix: see to the store, then materialize"
    )
    with pytest.raises(StorageError, match=expected):
        on_served(loaded, print)


def test_the_two_whole_bundles_that_were_served_last_stay(workspace: Workspace) -> None:
    bundles, store, bundle_id = open_bundles(workspace.loaded), open_store_of(workspace), PlainBundle(workspace).bundle_id
    width = len(read_all(workspace, ITEM)["a_00"])
    publish_rows(store, OTHER)
    bundles.replace_pointer(lambda now: Pointer((OTHER, *now.trail), (OTHER, *now.stored), now.ds))
    add_delta(workspace, a_00=np.ones(width))
    on_served(workspace.loaded, print)
    assert set(open_store_of(workspace).find_versions()) == {OTHER, bundle_id}


def test_a_rollback_to_a_version_that_is_stored_serves_it_within_two_seconds(workspace: Workspace) -> None:
    store, bundle_id = open_store_of(workspace), PlainBundle(workspace).bundle_id
    publish_rows(store, OTHER)
    begun = time.monotonic()
    on_served(workspace.loaded, print)
    assert time.monotonic() - begun < 2
    assert open_store_of(workspace).find_served() == bundle_id


def test_a_bundle_that_is_not_served_changes_nothing(workspace: Workspace) -> None:
    bundles, before = open_bundles(workspace.loaded), open_store_of(workspace).find_versions()
    bundle_id = PlainBundle(workspace).bundle_id
    later = Path(bundles.folder(bundle_id)).with_name("2024-01-13-staged")
    shutil.copytree(bundles.folder(bundle_id), later)
    content = PlainBundle(workspace).manifest | {"ds": "2024-01-13"}
    content.pop("files")
    renamed = write_manifest(later, **content)
    bundles.replace_pointer(lambda _: Pointer((bundle_id, renamed.name), (bundle_id, renamed.name), "2024-01-13"))
    result = make(workspace)
    assert (result.facts["is_served"], result.checks[0].is_passed) == (False, True)
    assert open_store_of(workspace).find_versions() == before


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has the store lose the first batch of items."""
    regular = BundleRows.to_rows

    def lose(self: Any, log: Any) -> Any:
        rows = regular(self, log)
        table = pa.Table.from_batches(list(rows.batches), rows.schema)
        return to_rows(table.slice(1)) if self.table is ITEM else rows

    monkeypatch.setattr(BundleRows, "to_rows", lose)
    yield


@pytest.mark.usefixtures("losing")
def test_rows_that_are_lost_fail_the_check_and_nothing_is_served(workspace: Workspace) -> None:
    store, items = open_store_of(workspace), len(PlainBundle(workspace).vectors(ITEM))
    before = (store.find_versions(), store.find_served(), read_all(workspace, ITEM))
    (check,) = make(workspace).checks
    assert not check.is_passed
    assert f"item has {items - 1} rows, the bundle {items}" in check.description
    store = open_store_of(workspace)
    assert (store.find_versions(), store.find_served(), read_all(workspace, ITEM)) == before
    assert store.find_removable([], before=time.time() + 60) == [], "drafts are gone"
    shutil.rmtree(Path(workspace.loaded.root) / "lancedb")
    with pytest.raises(StorageError, match="not served"):
        on_served(workspace.loaded, print)


def test_an_index_that_finds_too_little_is_not_served(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = type(open_store_of(workspace).open(ITEM, PlainBundle(workspace).bundle_id))
    regular = stored.search

    def miss(self: StoredVectors, vectors: Any, k: int, **options: Any) -> Any:
        return [(ids.slice(k // 2), scores) for ids, scores in regular(self, vectors, k, **options)]

    monkeypatch.setattr(stored, "search", miss)
    (check,) = make(workspace).checks
    assert not check.is_passed
    assert "recall of its item index 0.5" in check.description


def test_a_cleanup_removes_what_killed_publishers_left(workspace: Workspace) -> None:
    store, bundle_id = open_store_of(workspace), PlainBundle(workspace).bundle_id
    rows = store.open(ITEM, bundle_id).read(pa.array(["a_00"]))
    store.write(ITEM, to_rows(rows))
    later = time.time() + 60
    for removes, left in ((False, 1), (True, 0)):
        assert on_cleaned(workspace, later, removes=removes) == set()
        assert len(open_store_of(workspace).find_removable([bundle_id], later)) == left


@needs_extras("retention")
def test_a_store_that_is_away_does_not_stop_a_cleanup(workspace: Workspace) -> None:
    away = {"vector_store": {"uri": "qdrant://127.0.0.1:1"}}
    lines: list[str] = []
    loaded = worlds.write_config(workspace.loaded.home.parent, SETTINGS | away)
    staged = Path(loaded.root) / "_staging" / "killed"
    staged.mkdir(parents=True)
    removed = [one.path for one in load_extra("retention", "leftovers").clean(open_workspace(loaded, lines.append), 0.0)]
    assert str(staged) in removed
    assert lines[0].startswith("not cleaned: StorageError: ")
    assert "expected a vector store that answers" in lines[0]


@needs_extras("retention")
def test_without_a_bundle_there_is_nothing_to_follow(tmp_path: Path) -> None:
    """So a request to forget users ends in a home that has published nothing yet."""
    workspace = open_workspace(worlds.write_config(tmp_path, SETTINGS))
    assert load_extra("retention", "forget").forget(workspace, pa.array(["a0"])).faults == []


URIS: Mapping[str, str] = {
    "": "no value",
    "chroma://somewhere:secret@host": "not shown",
}


@pytest.mark.parametrize("uri", URIS)
def test_an_unknown_uri_is_an_error_that_does_not_show_it(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "VECTORS", uri)
    with pytest.raises(ConfigError, match=URIS[uri]) as caught:
        open_store("env:VECTORS", "shop", {})
    assert "environment variable VECTORS" in str(caught.value)
    assert "secret" not in str(caught.value).replace("may be secret", "")


@pytest.mark.parametrize("uri", ["lancedb://folder/vectors", "lancedb+s3://key:hush@bucket/vectors", "lancedb+s3:///folder"])
def test_a_folder_has_a_whole_path_and_a_bucket_no_login(uri: str) -> None:
    with pytest.raises(ConfigError, match="lancedb:///folder with an absolute path") as caught:
        open_store(uri, "shop", {})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:hush@host/db",
        "qdrant://:hush@host:6333",
        "qdrant+https://hush@host",
        "qdrant://host?api_key=hush",
        "milvus://me:hush@host",
        "lancedb+s3://me:hush@bucket/vectors",
    ],
)
def test_a_password_in_the_configuration_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write env:NAME") as caught:
        worlds.write_config(tmp_path, {"vector_store": {"uri": uri}})
    assert "hush" not in str(caught.value)
