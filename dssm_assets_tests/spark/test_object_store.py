"""Workers that read and write a real S3 server with pyarrow and s3fs: no jar, no file that passes through the driver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from dssm_assets.core.spark_config import ReadWith
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET, Services
from dssm_assets_tests.deploy.services import running as running_services
from dssm_assets_tests.spark.cluster import Cluster, requires_pyspark
from dssm_assets_tests.spark.steps import land_sources, run_on_spark, run_steps

pytestmark = requires_pyspark

DAYS = worlds.DAYS[:1]
PLAN = dict.fromkeys(("behavior", "user_history", "user_history_fg"), DAYS)
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Yields a running object store, with its address and keys in the environment."""
    root = Path(tempfile.mkdtemp(prefix="dssm-objects-"))
    with running_services(root) as services:
        services.start("object-store")
        for name in VARIABLES:
            monkeypatch.setenv(name, services.variables[name])
        yield services
    s3fs.S3FileSystem.clear_instance_cache()
    shutil.rmtree(root, ignore_errors=True)


def test_tables_on_s3_are_those_of_a_local_disk(cluster: Cluster, objects: Services, tmp_path: Path) -> None:
    here = land_sources(worlds.write_world(tmp_path / "here"), DAYS)
    run_steps(here, PLAN)
    settings = cluster.settings({"read_with": ReadWith.WORKERS.value})
    for name in VARIABLES:  # the keys of the workers: on a real cluster from their machines
        settings["spark"]["conf"][f"spark.executorEnv.{name}"] = objects.variables[name]
    loaded = worlds.write_world(tmp_path / "there", {**settings, "storage": {"root": f"s3://{BUCKET}/tables"}})
    there = land_sources(loaded, DAYS)
    print(run_on_spark(loaded, PLAN))
    for name in PLAN:
        manifest = there.need(name, DAYS[0])
        assert manifest == here.need(name, DAYS[0])
        there.tables.partitions.verify(manifest)
    stored = there.tables.partitions.fs.find(there.tables.partitions.root)
    assert not [path for path in stored if "_staging" in path]
