"""Qdrant and Milvus in their local modes: what the contract leaves open, and publishers that meet or are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import StorageError
from dssm_assets.extras.vector_stores.store import open_store
from dssm_assets.extras.vector_stores.testing import (
    item_rows,
    model_digests,
    nearest,
    publish,
    to_rows,
    user_rows,
    vectors_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")
A, B = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb"
ITEM, USER = VectorTable.ITEM, VectorTable.USER


@pytest.fixture(params=["qdrant", "milvus"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URI of a new folder of each kind."""
    return f"{request.param}://{tmp_path}/store.db"


@pytest.mark.slow
def test_publishers_at_once_leave_whole_versions(place: str) -> None:
    """Two publishers and a reader: every answer is of one model, and the served version is one of the two."""
    publish(open_store(place, "shop", {}), A, item_rows(40), user_rows(["u"]))
    models, errors, is_done = set[str](), list[Exception](), threading.Event()

    def publish_often(version: str) -> None:
        try:
            store = open_store(place, "shop", {})
            for _ in range(2):
                publish(store, version, item_rows(40, f"model-{version}"), user_rows(["u"], model=f"model-{version}"))
        except StorageError as error:
            errors.append(error)

    def read_often() -> None:
        store = open_store(place, "shop", {})
        while not is_done.is_set():
            served = store.find_served() or A
            found = model_digests(store.open(ITEM, served), pa.array(np.arange(40)))
            models.add("mixed" if len(found) > 1 else found.pop())

    threads = [threading.Thread(target=publish_often, args=[version]) for version in (A, B)]
    reader = threading.Thread(target=read_often)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    is_done.set()
    reader.join()
    store = open_store(place, "shop", {})
    assert store.find_served() in (A, B)
    assert models <= {"model-a", f"model-{A}", f"model-{B}"}
    assert errors == [] or "qdrant" not in place
    for version in store.find_versions():
        kinds = model_digests(store.open(ITEM, version), pa.array([3])) | model_digests(
            store.open(USER, version), pa.array(["u"])
        )
        assert kinds == {f"model-{version}"}


def test_negative_and_large_ids_are_ids(place: str) -> None:
    ids = pa.array([-1, -(2**63) + 1, 0, 2**63 - 1])
    items = item_rows(4).set_column(0, "item_id", ids)
    store = publish(open_store(place, "shop", {}), A, items)
    found = store.open(ITEM, A).read(ids).sort_by("item_id")
    assert found.column("item_id").to_pylist() == sorted(ids.to_pylist())
    assert np.array_equal(vectors_of(found), vectors_of(items.sort_by("item_id")))


def test_a_draft_that_became_a_version_is_kept(place: str) -> None:
    """A cleanup has listed the draft before its publisher added it."""
    store = open_store(place, "shop", {})
    draft = store.write(ITEM, to_rows(item_rows(10)))
    (listed,) = store.find_removable([], before=time.time() + 60)
    store.add(A, A, {ITEM: draft})
    store.remove(listed)
    store.serve(A)
    assert store.open(ITEM, A).count() == 10


def test_a_version_that_is_served_during_its_removal_is_kept(place: str) -> None:
    cleaner, publisher = (open_store(place, "shop", {}) for _ in range(2))
    publish(publisher, A, item_rows(10))
    publish(publisher, B, item_rows(10))
    change = cleaner.change_aliases

    def serve_first(*changes: object) -> None:
        publisher.serve(A)  # a rollback, after the cleaner has read what is served
        change(*changes)

    cleaner.change_aliases = serve_first
    cleaner.remove(A)
    assert publisher.find_aliases()["shop_item"] in publisher.list_names()


def test_the_revision_is_that_of_the_rows_that_readers_get(place: str) -> None:
    """Of two publishers of one bundle the later one was killed once it had named its revision."""
    store = publish(open_store(place, "shop", {}), A, item_rows(10))
    draft = store.write(ITEM, to_rows(item_rows(12)))
    store.change_aliases({f"shop_item__{A}__{B}".replace("-", "_"): draft}, [])
    assert (store.find_versions(), store.find_served(), store.open(ITEM, A).count()) == ({A: A}, A, 10)
    assert store.find_removable([A], before=time.time() + 60) == [draft]
    store.remove(draft)
    assert store.find_removable([A], before=time.time() + 60) == []
    store.remove(draft)
    assert (store.find_versions(), store.open(ITEM, A).count()) == ({A: A}, 10)


def test_a_reader_does_not_wait_for_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lacks memory never ends to load a collection."""
    store = publish(open_store(f"milvus://{tmp_path}/store.db", "shop", {}), A, item_rows(10))
    seconds: list[float] = []
    monkeypatch.setattr(store.client, "load_collection", lambda name, timeout: seconds.append(timeout))
    store.open(ITEM, A)
    assert seconds == [60]


def test_collections_of_others_are_left_alone(place: str) -> None:
    store = open_store(place, "shop", {})
    schema = item_rows(1).schema
    for name in ("shop_item_recommendation", "shop_b_item_00000000000000"):
        store.create(ITEM, name, schema)
    assert store.find_removable([], before=time.time() + 60) == []


def test_text_ids_need_no_quotes_in_requests(place: str) -> None:
    """More rows than an exact search reads at once."""
    items = item_rows(5000)
    ids = [f'say "{number}" \\x' for number in range(5000)]
    items = items.set_column(0, "item_id", pa.array(ids))
    store = open_store(place, "shop", {})
    stored = store.open(ITEM, store.write(ITEM, to_rows(items)))
    ((found, _),) = stored.search(np.ones((1, 8), np.float32), 30, is_exact=True)
    assert found.to_pylist() == nearest(items, np.ones(8), 30)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["qdrant", "milvus"])
def test_a_silent_server_is_an_error_without_its_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(StorageError) as caught:
            open_store(f"{scheme}://root:p%40ss@127.0.0.1:{server.getsockname()[1]}", "shop", {}).find_versions()
    assert time.monotonic() - start < 20
    assert "p@ss" not in str(caught.value) and "p%40ss" not in str(caught.value)


@pytest.mark.slow
def test_a_killed_writer_leaves_what_is_served(place: str, tmp_path: Path) -> None:
    """The writer is killed while it writes its fourth batch."""
    script = tmp_path / "writer.py"
    script.write_text(
        "import os, signal, sys\n"
        "from dssm_assets.core.config.pipeline import VectorTable\n"
        "from dssm_assets.extras.vector_stores.store import Rows, open_store\n"
        "from dssm_assets.extras.vector_stores.testing import item_rows, publish\n"
        "store, rows = open_store(sys.argv[1], 'shop', {}), item_rows(60)\n"
        f"publish(store, '{A}', rows)\n"
        "def batches():\n"
        "    for number, batch in enumerate(rows.to_batches(10)):\n"
        "        if number == 3:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield batch\n"
        "store.write(VectorTable.ITEM, Rows(rows.schema, 60, batches()))\n"
    )
    done = subprocess.run([sys.executable, script, place], env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False)
    assert done.returncode == -signal.SIGKILL
    store = open_store(place, "shop", {})
    assert (store.find_versions(), store.find_served(), store.open(ITEM, A).count()) == ({A: A}, A, 60)
    (leftover,) = store.find_removable([A], before=time.time() + 60)
    store.remove(leftover)
    assert store.find_removable([A], before=time.time() + 60) == []
