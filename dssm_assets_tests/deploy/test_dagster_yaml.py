"""Dagster itself loads the instance files: it knows every key, loads every class, and every variable is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

from dssm_assets.deployment.watched_launcher import WatchedRunLauncher
from dssm_assets.storage.instance_file import INSTANCE_YAML
from dssm_assets_tests.deploy.compose_file import DEPLOY, services

LOCAL, PRODUCTION = DEPLOY / "dagster.yaml", DEPLOY / "production" / "dagster.yaml"
SET = {
    "DAGSTER_PG_PASSWORD": "pg-secret",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "s3-secret",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sets what the compose file gives the daemon."""
    given = dict(services(SET)["daemon"].environment)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


@pytest.mark.parametrize("text", [LOCAL.read_text(encoding="utf-8"), INSTANCE_YAML], ids=["local", "of_a_home"])
def test_instances_without_a_service_queue_runs_as_dagster_does(tmp_path: Path, text: str) -> None:
    # Each look at a full queue is a line of the log, so that a line a second hides all others.
    for folder, written in (("ours", text), ("dagster", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dagster.yaml").write_text(written, encoding="utf-8")
    found = []
    for folder in ("ours", "dagster"):
        with dg.DagsterInstance.from_config(str(tmp_path / folder)) as instance:
            coordinator: Any = instance.run_coordinator
            found.append((type(coordinator).__name__, coordinator.dequeue_interval_seconds))
    assert found == [("QueuedRunCoordinator", 5)] * 2


def test_the_local_instance_loads(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes(LOCAL.read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1


def test_the_production_instance_is_known_to_dagster_key_by_key(environment: dict[str, str]) -> None:
    config, _ = dagster_instance_config(str(PRODUCTION.parent), PRODUCTION.name)
    assert set(config) >= set(yaml.safe_load(PRODUCTION.read_text(encoding="utf-8")))
    ref = InstanceRef.from_dir(str(PRODUCTION.parent))
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterPostgresStorage"  # it would connect if it were made
    assert ref.storage_data.config_dict["postgres_db"]["scheme"] == "postgresql+psycopg2"
    assert isinstance(ref.compute_log_manager, S3ComputeLogManager)
    assert isinstance(ref.run_launcher, WatchedRunLauncher)
    assert ref.settings["telemetry"] == {"enabled": False}
    assert ref.settings["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    assert ref.settings["run_monitoring"]["free_slots_after_run_end_seconds"] == 60


def test_every_variable_is_given_by_the_compose_file(environment: dict[str, str]) -> None:
    text = PRODUCTION.read_text(encoding="utf-8") + (DEPLOY / "production" / "workspace.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"env: (\w+)", text))
    assert named
    assert named <= set(environment)


def test_the_workspace_is_the_code_server(environment: dict[str, str]) -> None:
    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "production" / "workspace.yaml")])
    assert origin.location_name == "dssm_assets"
    assert (origin.host, origin.port) == ("code-server", 4000)
