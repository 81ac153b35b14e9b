"""What is LanceDB's own: values of its SQL, files, S3."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.extras.vector_stores.publish import list_unreached
from dssm_assets.extras.vector_stores.store import VectorStore, open_configured, open_store
from dssm_assets.extras.vector_stores.testing import item_rows, nearest, publish, to_rows, user_rows, vectors_of
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET, object_store

ITEM, USER = VectorTable.ITEM, VectorTable.USER
OLD, NEW = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb"


@pytest.fixture
def open_folder(tmp_path: Path) -> Callable[[], VectorStore]:
    return lambda: open_store(f"lancedb://{tmp_path}/lance", "shop", {})


def test_tiny_products_are_told_apart(open_folder):
    items = item_rows(50)
    store = open_folder()
    stored = store.open(ITEM, store.write(ITEM, to_rows(items)))
    user = np.full((1, 8), 1e-9, np.float32)
    ((ids, scores),) = stored.search(user, 50)
    assert ids.to_pylist() == nearest(items, user[0], 50)
    assert scores == pytest.approx(vectors_of(items)[ids.to_numpy()] @ user[0], rel=1e-3, abs=1e-14)


def test_other_programs_follow_the_table_of_versions(open_folder, tmp_path):
    import lancedb

    publish(open_folder(), OLD, item_rows(5))
    database = lancedb.connect(f"{tmp_path}/lance")
    (served,) = database.open_table("shop_versions").search().where("is_served").to_list()
    assert served["bundle_id"] == OLD
    assert database.open_table(served["item"]).count_rows() == 5


@pytest.mark.slow
def test_versions_on_s3(tmp_path):
    with object_store() as options, socket.create_server(("127.0.0.1", 0)) as silent:
        uri, items = f"lancedb+s3://{BUCKET}/vectors", item_rows(300)
        publish(open_store(uri, "shop", options), OLD, items, user_rows([1, 2]))
        store = open_store(uri, "shop", options)
        ((ids, _),) = store.open(ITEM, OLD).search(vectors_of(items)[:1], 20)
        assert ids.to_pylist() == nearest(items, vectors_of(items)[0], 20)
        assert store.open(USER, OLD).count() == 4
        publish(store, NEW, items)
        for name in store.find_removable([], before=time.time() + 60):
            store.remove(name)
        assert (store.find_versions(), store.find_served()) == ({NEW: NEW}, NEW)
        home = {"storage": {"root": f"s3://{BUCKET}/home", "options": options}}
        beside = worlds.write_config(tmp_path, home | {"vector_store": {}})
        publish(open_configured(beside), OLD, items, user_rows([1, 2]))
        assert list_unreached(open_workspace(beside)) == []
        without = open_workspace(worlds.write_config(tmp_path, home))
        assert list_unreached(without) == [f"vector store lancedb+s3://{BUCKET}/home/lancedb"]
        begun = time.monotonic()
        for wrong in ({"secret": "never-shown"}, {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}):
            with pytest.raises(StorageError) as error:
                open_store(uri, "shop", {**options, **wrong}).find_versions()
            assert not {options["key"], options["secret"], "never-shown"} & set(str(error.value).replace("/", " ").split())
        assert time.monotonic() - begun < 30


def test_a_version_that_is_removed_before_it_is_served_leaves_the_former_one_served(open_folder, monkeypatch):
    """Whatever a cleanup of another publisher removes in between."""
    publish(open_folder(), OLD, item_rows(20))
    store, other = open_folder(), open_folder()
    store.add(NEW, NEW, {ITEM: store.write(ITEM, to_rows(item_rows(30)))})
    need, errors = store._need, list[Exception]()

    def need_beside_a_cleanup(version):
        """The first look finds the version, the second one does not; a cleanup follows each."""
        try:
            need(version)
        except PartitionMissingError as error:
            errors.append(error)
        for name in other.find_removable([], before=0):
            other.remove(name)
        if errors:
            raise errors[0]

    monkeypatch.setattr(store, "_need", need_beside_a_cleanup)
    with pytest.raises(PartitionMissingError):
        store.serve(NEW)
    assert (other.find_versions(), other.find_served()) == ({OLD: OLD}, OLD)
