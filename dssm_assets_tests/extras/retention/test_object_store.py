"""Leftovers on a real S3 server."""

from __future__ import annotations

import itertools
import time
from typing import Any

from dssm_assets.extras.retention.leftovers import find_bundles, find_in_store
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.storage.layout import serving_root
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.deploy.services import BUCKET
from dssm_assets_tests.deploy.test_object_store import publish_file
from dssm_assets_tests.storage.races import publish_mark
from dssm_assets_tests.storage.stores import DS, verify

ROOT = f"s3://{BUCKET}/leftovers"


def test_leftovers_are_removed_and_what_is_needed_stays(options: dict[str, Any]) -> None:
    store = PartitionStore(f"{ROOT}", {**options, "skip_instance_cache": True})
    bundles = BundleStore(serving_root(f"{ROOT}"), {**options, "skip_instance_cache": True})
    served = publish_file(bundles, "2024-01-01", "towers")
    former, now = publish_mark(store, "x"), publish_mark(store, "y")
    unlisted = f"{store.root}/notes/ds={DS}/part-00000-ffffffffffff-1.bin"
    staged, partial = f"{store.root}/_staging/abandoned", f"{bundles.root}/bundles/2024-01-09-0123456789ab"
    for path in (unlisted, f"{staged}/000001.parquet", f"{partial}/item_vectors.arrow"):
        store.fs.pipe_file(path, b"1234")

    def clean(before: float) -> set[str]:
        paths = set()
        for leftover in itertools.chain(find_in_store(store, before), find_bundles(bundles, before)):
            leftover.remove()
            paths.add(leftover.path)
        return paths

    assert clean(time.time() - 3600) == set()
    replaced = {store.file_path(former, file) for file in former.files}
    assert clean(time.time() + 3600) == {unlisted, staged, partial, *replaced}
    assert clean(time.time() + 3600) == set()
    verify(store, now)
    bundles.fetch(served)
