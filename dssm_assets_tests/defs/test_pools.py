"""Two trainings never share a machine: the pool of dssm_model, with the limits of deploy/dagster.yaml, in real runs."""

import threading
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dssm_assets.defs.asset_factory import TRAINER, AssetRow, Observer, build_asset
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import StepResult
from dssm_assets.storage.manifest import Manifest
from dssm_assets_tests import worlds

DEPLOYED = Path(__file__).parent.parent.parent / "deploy" / "dagster.yaml"


@pytest.fixture
def instance(tmp_path):
    """Returns an instance with the pools of the deployed one."""
    pools = {"concurrency": yaml.safe_load(DEPLOYED.read_text(encoding="utf-8"))["concurrency"]}
    folder = tmp_path / "instance"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder), overrides=pools) as made:
        yield made


def both_spans(tmp_path, instance, pools):
    """Runs an asset of each of two scenes at the same time; returns when each worked, by its start."""
    spans = []

    def train(_workspace, days):
        begun = time.monotonic()
        time.sleep(1.0)
        spans.append((begun, time.monotonic()))
        for ds in days:
            yield StepResult(Manifest("model", ds, ()))

    row = AssetRow(name="model", group="training", step=train, description="", is_windowed=True, pool=TRAINER)
    threads = []
    for name, pool in pools.items():
        loaded = worlds.write_config(tmp_path / name, {"name": name, "platform": {"trainer_pool": pool}})
        asset = build_asset(row, Scene(loaded, name), Observer())
        job = dg.Definitions(assets=[asset], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()

        def run(job=job):
            assert job.execute_in_process(instance=instance, partition_key="2024-01-07").success

        threads.append(threading.Thread(target=run))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(spans)


def test_scenes_of_one_pool_train_one_after_the_other(tmp_path, instance):
    first, second = both_spans(tmp_path, instance, {"shop": "trainer", "news": "trainer"})
    assert first[1] <= second[0]


def test_scenes_of_two_pools_train_at_the_same_time(tmp_path, instance):
    first, second = both_spans(tmp_path, instance, {"shop": "trainer", "news": "gpu_two"})
    assert second[0] < first[1]
