"""The Kubernetes manifest of the code location, and the chart's values against the keys that the chart reads.

The chart cannot be rendered here. Its keys are those of the values schema of the chart, 1.13; what Dagster itself reads (the
container context, the instance settings that are handed on) is read by Dagster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s.container_context import K8sContainerContext

from dssm_assets.deployment.watched_k8s_launcher import WatchedK8sRunLauncher
from dssm_assets_tests.deploy.compose_file import DEPLOY, services
from dssm_assets_tests.deploy.test_compose import SET
from dssm_assets_tests.deploy.test_kubernetes_pods import SERVER, container_of, objects

_POD = {"image", "envConfigMaps", "envSecrets", "podSecurityContext", "securityContext", "resources"}
KNOWN: dict[str, set[str]] = {
    "": {
        "global",
        "generatePostgresqlPasswordSecret",
        "postgresql",
        "dagster-user-deployments",
        "dagsterWebserver",
        "dagsterDaemon",
        "runLauncher",
        "computeLogManager",
        "additionalInstanceConfig",
        "telemetry",
    },
    "global": {"postgresqlSecretName", "dagsterHome", "serviceAccountName", "celeryConfigSecretName"},
    "postgresql": {
        "enabled",
        "postgresqlHost",
        "postgresqlUsername",
        "postgresqlDatabase",
        "postgresqlScheme",
        "postgresqlParams",
        "service",
    },
    "dagster-user-deployments": {"enabled", "enableSubchart", "deployments"},
    "dagsterWebserver": {"replicaCount", "enableReadOnly", "workspace", *_POD},
    "dagsterWebserver.workspace": {"enabled", "servers", "externalConfigmap"},
    "dagsterDaemon": {"enabled", "runCoordinator", "runMonitoring", "runRetries", "sensors", "schedules", "backfills", *_POD},
    "dagsterDaemon.runCoordinator": {"enabled", "type", "config"},
    "dagsterDaemon.runCoordinator.config.queuedRunCoordinator": {
        "maxConcurrentRuns",
        "tagConcurrencyLimits",
        "dequeueIntervalSeconds",
        "dequeueUseThreads",
        "dequeueNumWorkers",
        "blockOpConcurrencyLimitedRuns",
    },
    "dagsterDaemon.runMonitoring": {
        "enabled",
        "startTimeoutSeconds",
        "cancelTimeoutSeconds",
        "maxResumeRunAttempts",
        "pollIntervalSeconds",
        "freeSlotsAfterRunEndSeconds",
    },
    "dagsterDaemon.runRetries": {"enabled", "maxRetries", "retryOnAssetOrOpFailure"},
    "runLauncher": {"type", "config"},
    "runLauncher.config": {"customRunLauncher"},
    "runLauncher.config.customRunLauncher": {"module", "class", "config"},
    "computeLogManager.config.s3ComputeLogManager": {
        "bucket",
        "localDir",
        "prefix",
        "useSsl",
        "verify",
        "verifyCertPath",
        "endpointUrl",
        "skipEmptyFiles",
        "uploadInterval",
        "uploadExtraArgs",
        "showUrlOnly",
        "region",
    },
}


def _values() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text(encoding="utf-8")))


def _objects() -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): item for item in objects(SERVER)}


def _at(values: Mapping[str, Any], path: str) -> Any:
    for part in path.split(".") if path else ():
        values = values[part]
    return values


def test_the_values_have_only_keys_that_the_chart_reads() -> None:
    values = _values()
    unknown = {path: sorted(set(_at(values, path)) - known) for path, known in KNOWN.items()}
    assert {path: names for path, names in unknown.items() if names} == {}


def test_instance_settings_are_known_to_dagster() -> None:
    handed_on = _values()["additionalInstanceConfig"]
    production = yaml.safe_load((DEPLOY / "production" / "dagster.yaml").read_text(encoding="utf-8"))
    assert set(handed_on) <= set(dagster_instance_config_schema())
    assert handed_on["concurrency"]["pools"] == production["concurrency"]["pools"]
    assert handed_on["backfills"] == production["backfills"]


def test_queue_retries_and_logs_equal_those_of_the_compose_file() -> None:
    values = _values()
    production = yaml.safe_load((DEPLOY / "production" / "dagster.yaml").read_text(encoding="utf-8"))
    retries = values["dagsterDaemon"]["runRetries"]
    assert {"enabled": True, "max_retries": retries["maxRetries"], "retry_on_asset_or_op_failure": False} == production[
        "run_retries"
    ]
    assert retries["retryOnAssetOrOpFailure"] is False
    assert values["postgresql"]["postgresqlScheme"] == production["storage"]["postgres"]["postgres_db"]["scheme"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert (logs["bucket"], logs["prefix"]) == ({"env": "DSSM_LOG_BUCKET"}, production["compute_logs"]["config"]["prefix"])
    assert values["telemetry"] == {"enabled": False}


def test_code_server_has_the_address_that_the_ui_uses() -> None:
    (server,) = _values()["dagsterWebserver"]["workspace"]["servers"]
    service = _objects()["Service", "dssm-assets"]
    (port,) = service["spec"]["ports"]
    container = container_of(SERVER)
    assert server == {"host": service["metadata"]["name"], "port": port["port"], "name": "dssm_assets"}
    assert [item["name"] for item in container["ports"]] == [port["targetPort"]]
    assert container["command"] == list(services(SET)["code-server"].command)
    labels = _objects()["Deployment", "dssm-assets"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_run_pods_have_the_configuration_and_the_environment_of_the_server() -> None:
    container, launcher = container_of(SERVER), _values()["runLauncher"]["config"]["customRunLauncher"]["config"]
    named = [
        (entry["configMapRef"] if "configMapRef" in entry else entry["secretRef"])["name"] for entry in container["envFrom"]
    ]
    assert named == [*launcher["env_config_maps"], *launcher["env_secrets"]]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["DAGSTER_CURRENT_IMAGE"] == container["image"]
    context = K8sContainerContext.create_from_config(json.loads(variables["DAGSTER_CONTAINER_CONTEXT"]))
    run = context.run_k8s_config
    mounts = {mount["mount_path"] for mount in run.container_config["volume_mounts"]}
    assert mounts == {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in run.pod_spec_config["volumes"]} == {"config", "scratch"}


def test_runs_are_launched_by_a_launcher_that_takes_its_settings() -> None:
    values = _values()
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert (values["runLauncher"]["type"], launcher["class"]) == ("CustomRunLauncher", "WatchedK8sRunLauncher")
    assert launcher["module"] == WatchedK8sRunLauncher.__module__
    checked = process_config(resolve_to_config_type(WatchedK8sRunLauncher.config_type()), launcher["config"])
    assert checked.errors is None or checked.errors == []
    assert launcher["config"]["postgres_password_secret"] == values["global"]["postgresqlSecretName"]
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    install = f"helm upgrade --install {launcher['config']['service_account_name']} dagster/dagster --version"
    assert install in page, "the chart names its objects after the release"
    assert f"-n {launcher['config']['job_namespace']} -f deploy/kubernetes/values.yaml" in page


def test_secrets_are_referred_to_and_never_written() -> None:
    assert not any(kind == "Secret" for kind, _ in _objects())
    data = _objects()["ConfigMap", "dssm-assets"]["data"]
    secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DSSM_FAILURE_WEBHOOK"}
    compose = set(services(SET)["code-server"].environment)
    given_by_chart = {name for name in compose if name.startswith(("DAGSTER_PG_", "DSSM_CODE_SERVER_"))} | {"DAGSTER_HOME"}
    assert secret <= compose
    assert set(data) == compose - given_by_chart - secret


def test_the_configuration_is_the_example_of_the_folder() -> None:
    data = _objects()["ConfigMap", "dssm-config"]["data"]
    assert data == {path.name: path.read_text(encoding="utf-8") for path in sorted((DEPLOY / "config").iterdir())}
