"""Trainings run one at a time: the pool of dssm_model, with the limits of deploy/dagster.yaml, in real runs."""

import threading
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_row import TRAINER, AssetRow
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import StepResult
from dssm_assets.storage.manifest import Manifest
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import LocalStep

DEPLOYED = Path(__file__).parent.parent.parent / "deploy" / "dagster.yaml"


@pytest.fixture
def instance(tmp_path):
    pools = {"concurrency": yaml.safe_load(DEPLOYED.read_text(encoding="utf-8"))["concurrency"]}
    # Output is captured per process: a run in a thread would take it from the test.
    silent = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    settings = pools | {"compute_logs": silent, "telemetry": {"enabled": False}}
    folder = tmp_path / "instance"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder), overrides=settings) as made:
        yield made


def test_training_waits_while_another_scene_trains(tmp_path, instance):
    begun = threading.Event()

    def train(_workspace, days):
        begun.set()
        for ds in days:
            yield StepResult(Manifest("model", ds, ()))

    step = LocalStep("tests", "model", train)
    row = AssetRow(step=step, group="training", description="", is_windowed=True, pool=TRAINER)
    loaded = worlds.write_config(tmp_path / "shop", {"name": "shop"})
    asset = build_asset(row, Scene(loaded, "shop"), Observer())
    job = dg.Definitions(assets=[asset], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
    storage = instance.event_log_storage
    instance.event_log_storage.initialize_concurrency_limit_to_default("trainer")
    assert storage.claim_concurrency_slot("trainer", "training-of-another-scene", "dssm_model").is_claimed
    thread = threading.Thread(target=lambda: job.execute_in_process(instance=instance, partition_key="2024-01-07"))
    thread.start()
    assert not begun.wait(timeout=3.0)
    storage.free_concurrency_slots_for_run("training-of-another-scene")
    thread.join(timeout=60.0)
    assert begun.is_set()
