"""Published tables on a real S3 server, read with options as another program has them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import StaticTable

from dssm_assets.extras.iceberg_catalog import hooks
from dssm_assets_tests.deploy.services import BUCKET
from dssm_assets_tests.extras.iceberg_catalog.tables import ASSET, assert_read_alike, find_table, open_published, put, users

pytestmark = pytest.mark.slow

ONE, TWO = "2024-01-01", "2024-01-02"


@pytest.mark.parametrize("given", ["options", "environment"])
def test_days_are_registered_replaced_and_read_by_their_urls(
    tmp_path: Path, options: dict[str, Any], given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = {"root": f"s3://{BUCKET}/{given}", "options": options, "grace_hours": 0}
    if given == "environment":
        storage["options"] = {}
        for name, key in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("ENDPOINT_URL", "endpoint_url")):
            monkeypatch.setenv(f"AWS_{name}", options[key])
    workspace, published = open_published(tmp_path, {"storage": storage})
    store = workspace.tables.partitions
    put(workspace, ONE, [1, 2])
    put(workspace, TWO, [3])
    stored = {path: store.fs.info(path)["ETag"] for path in store.fs.find(store.root)}
    published.sync(ASSET)
    assert {path: store.fs.info(path)["ETag"] for path in stored} == stored
    others = set(store.fs.find(store.root)) - set(stored)
    assert all(path.startswith(f"{store.root}/_iceberg/") for path in others)
    put(workspace, ONE, [4])
    published.sync(ASSET, [ONE])
    assert_read_alike(published, ASSET)
    assert published.find_listed(ASSET) == {path for path in store.fs.find(store.root) if path.endswith(".parquet")}
    assert len(hooks.on_cleaned(workspace, time.time(), removes=True)) == 2
    reached = {
        "s3.endpoint": options["endpoint_url"],
        "s3.access-key-id": options["key"],
        "s3.secret-access-key": options["secret"],
        "s3.region": "us-east-1",
    }
    elsewhere = StaticTable.from_metadata(find_table(published).metadata_location, reached)
    assert users(elsewhere) == {ONE: [4], TWO: [3]}
    written = b"".join(map(store.fs.cat_file, store.fs.find(f"{store.root}/_iceberg")))
    assert options["secret"].encode() not in written + (tmp_path / "home" / "iceberg.db").read_bytes()
