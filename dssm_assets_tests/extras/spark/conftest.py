"""The one cluster of this package's tests, and an object store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from dssm_assets.storage.locations import open_s3_session
from dssm_assets_tests.deploy import services
from dssm_assets_tests.extras.spark import cluster as clusters


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Cluster]:
    with clusters.running(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[services.Services]:
    """Yields a running object store, with its address and keys in the environment."""
    root = Path(tempfile.mkdtemp(prefix="objects-of-tests-"))
    with services.running(root) as started:
        started.start("object-store")
        for name in clusters.S3_VARIABLES:
            monkeypatch.setenv(name, started.variables[name])
        yield started
    s3fs.S3FileSystem.clear_instance_cache()
    open_s3_session.cache_clear()
    shutil.rmtree(root, ignore_errors=True)
