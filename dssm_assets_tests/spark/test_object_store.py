"""Workers that read and write a real S3 server with pyarrow and s3fs: no jar, no file that passes through the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import Services
from dssm_assets_tests.spark.cluster import Cluster, requires_pyspark
from dssm_assets_tests.spark.steps import land_sources, run_on_spark, run_steps

pytestmark = requires_pyspark

DAYS = worlds.DAYS[:1]
PLAN = dict.fromkeys(("behavior", "user_history", "user_history_fg"), DAYS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tables_on_s3_are_those_of_a_local_disk(cluster: Cluster, objects: Services, tmp_path: Path) -> None:
    here = land_sources(worlds.write_world(tmp_path / "here"), DAYS)
    run_steps(here, PLAN)
    loaded = worlds.write_world(tmp_path / "there", cluster.settings_on_s3(objects))
    there = land_sources(loaded, DAYS)
    print(run_on_spark(loaded, PLAN))
    for name in PLAN:
        manifest = there.need(name, DAYS[0])
        assert manifest == here.need(name, DAYS[0])
        there.tables.partitions.verify(manifest)
    stored = there.tables.partitions.fs.find(there.tables.partitions.root)
    assert not [path for path in stored if "_staging" in path]
