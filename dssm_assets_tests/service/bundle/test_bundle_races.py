"""Readers see a whole bundle while publishers run concurrently or are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets_tests import quick_processes
from dssm_assets_tests.service.bundle.stored_bundles import bundles_on_disk, marks, publish, store_of


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BundleStore:
    return store_of(request.param, tmp_path)


class Reader(threading.Thread):
    """Opens the current bundle repeatedly and records every one that is not whole."""

    def __init__(self, store: BundleStore) -> None:
        super().__init__(daemon=True)
        self.store, self.stop = store, threading.Event()
        self.seen: dict[str, int] = {}
        self.faults: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            pointer = self.store.pointer()
            if pointer is None:
                continue
            try:
                found = marks(self.store, pointer.bundle_id)
            except (FileNotFoundError, PartitionMissingError):
                now = self.store.pointer()
                # Only a bundle that was cleared away in the meantime may vanish: then the pointer has gone on by two.
                if now is not None and pointer.bundle_id in (now.bundle_id, now.previous):
                    self.faults.append(f"{pointer.bundle_id} is served and not whole")
                continue
            if len(found) != 1:
                self.faults.append(f"{pointer.bundle_id} mixes {found}")
            self.seen[pointer.bundle_id] = self.seen.get(pointer.bundle_id, 0) + 1


def test_a_concurrent_reader_always_sees_a_whole_bundle(store: BundleStore) -> None:
    publish(store, "m0")
    readers = [Reader(store) for _ in range(2)]
    for reader in readers:
        reader.start()
    begun, count = time.monotonic(), 1
    while count < 400 and (time.monotonic() - begun < 2 or min(len(reader.seen) for reader in readers) < 10):
        publish(store, f"m{count}", keep=3)
        if count % 7 == 0:
            store.rollback()
        count += 1
    for reader in readers:
        reader.stop.set()
        reader.join(10)
    assert [fault for reader in readers for fault in reader.faults] == []
    assert all(len(reader.seen) >= 10 for reader in readers), [len(reader.seen) for reader in readers]


def _publish_forever(root: str, name: str) -> None:
    store = BundleStore(root)
    for number in range(10**6):
        publish(store, f"{name}{number}")


def test_a_killed_publisher_leaves_a_whole_bundle(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    publish(store, "first")
    context = quick_processes.context()
    for attempt in range(3):
        process = context.Process(target=_publish_forever, args=(str(tmp_path), f"k{attempt}-"), daemon=True)
        process.start()
        deadline = time.monotonic() + 60
        before = store.pointer()
        while store.pointer() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.037 * attempt)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        pointer: Any = store.pointer()
        assert pointer is not None and pointer != before
        store.fetch(pointer.bundle_id)
        store.fetch(pointer.previous)
        assert len(marks(store, pointer.bundle_id)) == 1
    assert publish(store, "after").is_current


def test_concurrent_publishers_lose_no_bundle(tmp_path: Path) -> None:
    """Each publishes ten; every bundle is in the pointer's list exactly once, in some order."""
    stores = [BundleStore(str(tmp_path)) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda s=s, n=n: [publish(s, f"p{n}-{i}", keep=100) for i in range(10)])
        for n, s in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pointer = stores[0].pointer()
    assert pointer is not None
    assert len(pointer.stored) == len(set(pointer.stored)) == 20
    assert set(pointer.stored) == bundles_on_disk(stores[0])
