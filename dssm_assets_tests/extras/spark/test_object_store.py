"""Workers read and write a real S3 server with pyarrow and s3fs, without a jar and without sending files through the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import Services
from dssm_assets_tests.extras.spark.cluster import Cluster, requires_pyspark
from dssm_assets_tests.extras.spark.comparison import assert_same_tables
from dssm_assets_tests.extras.spark.steps import days_of_steps, land_sources, run_on_spark, run_steps
from dssm_assets_tests.storage.stores import verify

pytestmark = requires_pyspark

DAYS = worlds.DAYS[:2]
PLAN = days_of_steps(DAYS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tables_on_s3_equal_those_on_a_local_disk(cluster: Cluster, objects: Services, tmp_path: Path) -> None:
    here = land_sources(worlds.write_world(tmp_path / "here"), DAYS)
    run_steps(here, PLAN)
    loaded = worlds.write_world(tmp_path / "there", cluster.settings_on_s3(objects))
    there = land_sources(loaded, DAYS)
    print(run_on_spark((loaded, PLAN)))
    assert_same_tables(here, there, PLAN)
    for name, days in PLAN.items():
        for ds in days:
            verify(there.tables.partitions, there.need(name, ds))
    stored = there.tables.partitions.fs.find(there.tables.partitions.root)
    assert not [path for path in stored if "_staging" in path]
