"""The Kubernetes files of the recall service: their schema, that their parts name each other, and that probes ask what answers."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import yaml

from dssm_assets.cli import build_parser
from dssm_assets_tests.deploy.compose_file import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"


def _objects(name: str) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))}


def _pod(name: str = "recall.yaml") -> dict[str, Any]:
    return dict(_objects(name)["Deployment"]["spec"]["template"]["spec"])


def _container(name: str = "recall.yaml") -> dict[str, Any]:
    (found,) = _pod(name)["containers"]
    return dict(found)


def test_every_object_fits_the_schema_of_kubernetes() -> None:
    found = _objects("recall.yaml")
    assert set(found) == {"Deployment", "Service"}
    for item in found.values():
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_the_service_finds_the_pods_at_the_port_of_the_command() -> None:
    deployment, service, container = _objects("recall.yaml")["Deployment"], _objects("recall.yaml")["Service"], _container()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert container["command"][0] == "dssm-assets"
    parsed = build_parser().parse_args(container["command"][1:])
    (port,), (target,) = service["spec"]["ports"], container["ports"]
    assert parsed.host == "0.0.0.0"
    assert parsed.port == target["containerPort"] == port["port"]
    assert target["name"] == port["targetPort"]
    assert parsed.threads == int(container["resources"]["requests"]["cpu"])


def test_probes_ask_for_life_and_readiness() -> None:
    container = _container()
    paths = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert {probe["httpGet"]["port"] for name, probe in container.items() if name.endswith("Probe")} == {"http"}


def test_pods_have_the_image_the_scene_and_the_rights_of_the_code_location() -> None:
    container, server = _container(), _container("code_location.yaml")
    for key in ("image", "envFrom", "volumeMounts", "securityContext"):
        assert container[key] == server[key]
    pod, other = _pod(), _pod("code_location.yaml")
    assert pod["securityContext"] == other["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
