"""The one cluster of this package's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dssm_assets_tests.spark.cluster import Cluster, running


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yields a running cluster."""
    with running(tmp_path_factory.mktemp("cluster")) as started:
        yield started
