"""The stores on a real S3 server: conditional puts, multipart uploads, credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import s3fs

from dssm_assets.core.errors import InputError
from dssm_assets.service.bundle.bundle_store import BundleStore, Pointer, after_publish
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.deploy.services import BUCKET, object_store
from dssm_assets_tests.storage.races import publish_mark, race, read_marks
from dssm_assets_tests.storage.stores import DS, NOTES, notes, verify

OTHER_BUCKET = "others"
ROOT = f"s3://{BUCKET}/stores"
PARTS_BYTES = 110 << 20
"""s3fs sends a file of more than 100 MiB in parts."""


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """Yields the options by which a running object store is reached."""
    with object_store(OTHER_BUCKET) as options:
        yield options


def publish_file(store: BundleStore, ds: str, content: str) -> str:
    with store.staging() as folder:
        (folder / "towers").mkdir()
        (folder / "towers" / "user.onnx").write_text(content, encoding="utf-8")
        return store.publish(folder, {"ds": ds}, keep=3).bundle_id


def test_writes_of_another_process_are_visible_at_once(options: dict[str, Any]) -> None:
    ours = PartitionStore(f"{ROOT}/seen", {**options, "skip_instance_cache": True})
    theirs = PartitionStore(f"{ROOT}/seen", {**options, "skip_instance_cache": True})
    assert ours.days("notes") == []
    assert ours.find("notes", DS) is None
    written = TableStore(theirs).write(NOTES, DS, notes(("a", 1, None)))
    assert ours.days("notes") == [DS]
    assert ours.find("notes", DS) == written
    again = TableStore(theirs).write(NOTES, DS, notes(("b", 2, None)))
    assert TableStore(ours).read(again).to_pylist() == [{"user_id": "b", "at": 2, "note": None}]
    assert ours.find("notes", DS) == again
    held = [Path(path).name for path in theirs.fs.find(f"{BUCKET}/stores/seen")]
    assert sorted(held) == sorted(["_manifest.json", written.files[0].path, again.files[0].path]), "readers may need the former"
    theirs.grace_seconds = 0
    last = TableStore(theirs).write(NOTES, DS, notes(("c", 3, None)))
    held = [Path(path).name for path in theirs.fs.find(f"{BUCKET}/stores/seen")]
    assert sorted(held) == sorted(["_manifest.json", last.files[0].path]), "what was replaced is gone"


def test_racing_writers_and_readers_find_no_fault(options: dict[str, Any]) -> None:
    def open_store() -> PartitionStore:
        return PartitionStore(f"{ROOT}/races", {**options, "skip_instance_cache": True}, grace_seconds=0)

    result = race(open_store, rounds=6, writers=3, readers=2)
    assert result.faults == []
    assert result.writes == 18 and result.reads > 0
    held = [Path(path).name for path in open_store().fs.find(f"{BUCKET}/stores/races")]
    assert len(held) == 4, "each writer knew what it replaced, so nothing is left over"


def test_manifest_whose_answer_was_lost_counts_as_put(options: dict[str, Any]) -> None:
    store = PartitionStore(f"{ROOT}/lost", {**options, "skip_instance_cache": True})
    publish_mark(store, "x")
    put = store.fs.pipe_file

    def lose_answer(path: str, content: bytes, **condition: str) -> None:
        store.fs.pipe_file = put
        put(path, content, **condition)
        put(path, content, **condition)  # as a client does that got no answer: now the condition fails

    store.fs.pipe_file = lose_answer
    made = publish_mark(store, "y")
    assert store.need("notes", DS) == made
    assert len(store.need("notes", DS).replaced) == 3


def test_manifest_whose_answer_was_lost_and_that_was_replaced_meanwhile_does_not_come_back(options: dict[str, Any]) -> None:
    """Else it would list files that the other run has removed as replaced."""
    store, other = (PartitionStore(f"{ROOT}/late", {**options, "skip_instance_cache": True}, grace_seconds=0) for _ in range(2))
    publish_mark(store, "x")
    put = store.fs.pipe_file

    def lose_answer(path: str, content: bytes, **condition: str) -> None:
        store.fs.pipe_file = put
        put(path, content, **condition)
        publish_mark(other, "z")
        put(path, content, **condition)

    store.fs.pipe_file = lose_answer
    publish_mark(store, "y")
    assert read_marks(store) == {"z"}
    verify(store, store.need("notes", DS))


def test_multipart_upload_arrives_whole(options: dict[str, Any]) -> None:
    store = PartitionStore(f"{ROOT}/parts", options)
    with store.staging() as folder:
        path = folder / "model.bin"
        path.write_bytes(bytes(range(256)) * (PARTS_BYTES // 256))
        manifest = store.publish(asset="model", ds=DS, staged=[(path, 0)])
    assert manifest.size_bytes == PARTS_BYTES
    verify(store, manifest)


def test_pointer_that_moved_meanwhile_is_not_overwritten(options: dict[str, Any]) -> None:
    store = BundleStore(f"{ROOT}/pointer", options)
    tried = []

    def slow(before: Pointer | None) -> Pointer:
        tried.append(before)
        if len(tried) == 1:
            store.replace_pointer(lambda now: after_publish(now, "quick", "2024-01-01"))
        return after_publish(before, "slow", "2024-01-01")

    assert store.replace_pointer(slow).trail == ("quick", "slow")
    assert [None if before is None else before.bundle_id for before in tried] == [None, "quick"]
    assert json.loads(store.fs.cat_file(f"{store.root}/current.json"))["previous"] == "quick"


def test_concurrent_publishers_all_stay_in_the_trail(options: dict[str, Any]) -> None:
    def publish(number: int) -> str:
        store = BundleStore(f"{ROOT}/race", {**options, "skip_instance_cache": True})
        return publish_file(store, "2024-01-01", f"bundle {number}")

    with ThreadPoolExecutor(3) as pool:
        made = set(pool.map(publish, range(3)))
    store = BundleStore(f"{ROOT}/race", options)
    pointer = store.pointer()
    assert pointer is not None
    assert set(pointer.stored) == set(pointer.trail) == made
    for bundle_id in made:
        store.fetch(bundle_id)
    assert store.rollback().bundle_id == pointer.previous


def test_wrong_keys_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a place that can be used"):
        PartitionStore(f"{ROOT}/seen", {**options, "secret": "wrong"}).find("notes", DS)


def test_the_keys_open_no_other_bucket(options: dict[str, Any]) -> None:
    store = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    store.pipe_file(f"{BUCKET}/ours", b"1")
    attempts = (
        lambda: store.pipe_file(f"{OTHER_BUCKET}/theirs", b"1"),
        lambda: store.cat_file(f"{OTHER_BUCKET}/theirs"),
        lambda: store.find(OTHER_BUCKET),
        lambda: store.call_s3("delete_object", Bucket=OTHER_BUCKET, Key="theirs"),
        lambda: store.mkdir("third"),
        lambda: store.call_s3("delete_bucket", Bucket=BUCKET),
    )
    for attempt in attempts:
        with pytest.raises(PermissionError):
            attempt()
