"""LanceDB and PostgreSQL with publishers, readers, cleanups and kills beside each other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.extras.vector_stores.testing import Opener, item_rows, model_digests, publish, to_rows, user_rows

pytestmark = pytest.mark.parametrize("uri", ["lancedb", "pgvector"], indirect=True)
ITEM, USER = VectorTable.ITEM, VectorTable.USER
A, B, C = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb", "2024-01-14-cccccccccccc"
QUERY = np.ones((1, 8), np.float32)


def remove_needless(opened: Opener, *kept: str, before: float) -> None:
    for name in opened().find_removable(kept, before):
        opened().remove(name)


def test_two_publishers_of_one_bundle_leave_one_version(opened: Opener) -> None:
    with ThreadPoolExecutor(4) as publishers:
        list(publishers.map(lambda seed: publish(opened(), A, item_rows(30, f"model-{seed}", seed)), range(4)))
    store = opened()
    assert len(model_digests(store.open(ITEM, A), pa.array(range(30)))) == 1
    assert (store.find_versions(), store.find_served()) == ({A: A}, A)
    assert len(store.find_removable([], before=time.time() + 60)) == 3


def test_a_cleanup_meets_a_slow_publisher(opened: Opener) -> None:
    """Its draft is old when it becomes a version's, or is gone by then."""
    publish(opened(), A, item_rows(20))
    cleanup, store = opened(), opened()
    lost, slow = (store.write(ITEM, to_rows(item_rows(30))) for _ in range(2))
    removable = cleanup.find_removable([A], before=time.time() + 60)
    assert sorted(removable) == sorted([lost, slow])
    store.add(B, B, {ITEM: slow})
    for name in removable:
        cleanup.remove(name)
    assert store.open(ITEM, B).count() == 30
    with pytest.raises(PartitionMissingError):
        store.add(C, C, {ITEM: lost})
    assert store.find_versions() == {A: A, B: B}


@pytest.mark.slow
def test_publishers_of_other_bundles_remove_each_others_versions(opened: Opener) -> None:
    """One whose version is removed before it is served fails; all others serve, and a version always remains."""
    publish(opened(), "b", item_rows(50))

    def publish_often(number: int) -> None:
        for turn in range(12):
            version = f"b{number}-{turn}"
            with suppress(PartitionMissingError):
                publish(opened(), version, item_rows(50, version))
            remove_needless(opened, version, before=0)
            assert opened().find_versions()

    with ThreadPoolExecutor(3) as publishers:
        list(publishers.map(publish_often, range(3)))
    served = opened().find_served()
    assert served is not None
    assert model_digests(opened().open(ITEM, served), pa.array([1, 2])) == {served}


@pytest.mark.slow
def test_readers_beside_fifty_publishes_meet_one_model(opened: Opener) -> None:
    versions = [f"2024-01-12-{number:012x}" for number in range(51)]
    publish(opened(), versions[0], item_rows(300, versions[0]), user_rows([1, 2], model=versions[0]))
    is_over = threading.Event()

    def read(number: int) -> int:
        store, answers = opened(), 0
        while not is_over.is_set():
            version = store.find_served() if number % 2 else max(store.find_versions())
            assert version is not None
            stored = store.open(ITEM, version)
            ((ids, _),) = stored.search(QUERY, 20)
            assert len(ids) == 20
            assert model_digests(stored, ids) == model_digests(store.open(USER, version), pa.array([1, 2])) == {version}
            answers += 1
        return answers

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, number) for number in range(8)]
        try:
            for number, version in enumerate(versions[1:], 1):
                items = item_rows(300, version, number)
                publish(
                    opened(), version, items.drop(["price"]) if number % 10 == 5 else items, user_rows([1, 2], model=version)
                )
                remove_needless(opened, *versions[max(number - 2, 0) : number + 1], before=0)
        finally:
            is_over.set()
        assert min(reader.result() for reader in readers) > 10


PUBLISH_FOR_EVER = f"""
import sys
from dssm_assets.extras.vector_stores.store import open_store
from dssm_assets.extras.vector_stores.testing import item_rows, publish, user_rows
store = open_store(sys.argv[1], "shop", {{}})
print("begins", flush=True)
while True:
    for version in ("{A}", "{B}"):
        publish(store, version, item_rows(5_000, version), user_rows([1, 2], model=version))
"""


@pytest.mark.slow
def test_killed_publishers_leave_whole_versions(uri: str, opened: Opener) -> None:
    publish(opened(), A, item_rows(5_000, A), user_rows([1, 2], model=A))
    for number in range(10):
        command = [sys.executable, "-c", PUBLISH_FOR_EVER, uri]
        publishers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(1 + number % 2)]
        for publisher in publishers:
            assert publisher.stdout is not None and publisher.stdout.readline() == b"begins\n"
        time.sleep(0.05 + 0.13 * number)
        for publisher in publishers:
            publisher.kill()
            publisher.communicate()
        store = opened()
        assert store.find_served() in (A, B)
        for version in store.find_versions():
            assert store.open(ITEM, version).count() == 5_000
            assert model_digests(store.open(ITEM, version), pa.array([0, 4_999])) == {version}
            assert model_digests(store.open(USER, version), pa.array([1, 2])) == {version}
    publish(opened(), C, item_rows(50))
    remove_needless(opened, C, before=time.time() + 60)
    assert (opened().find_versions(), opened().find_removable([], before=time.time() + 60)) == ({C: C}, [])
