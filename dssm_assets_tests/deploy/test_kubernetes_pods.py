"""The Kubernetes files of the recall service and of a fit by several machines: schemas, and that their parts name each other."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml
from torch.distributed.run import get_args_parser

from dssm_assets.cli import build_parser
from dssm_assets_tests.deploy.compose_file import DEPLOY

FIT, RECALL, SERVER = "fit_job.yaml", "recall.yaml", "code_location.yaml"


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")))


def _by_kind(name: str) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in objects(name)}


def _pod(name: str) -> dict[str, Any]:
    return dict(_by_kind(name)["Job" if name == FIT else "Deployment"]["spec"]["template"]["spec"])


def container_of(name: str) -> dict[str, Any]:
    (found,) = _pod(name)["containers"]
    return dict(found)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        (FIT, {"Service", "PersistentVolumeClaim", "Job"}),
        (RECALL, {"Deployment", "Service"}),
        (SERVER, {"ConfigMap", "Deployment", "Service"}),
    ],
)
def test_every_object_fits_the_schema_of_kubernetes(name: str, kinds: set[str]) -> None:
    found = objects(name)
    assert {item["kind"] for item in found} == kinds
    for item in found:
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_every_pod_of_a_fit_meets_the_others_at_the_first() -> None:
    job, service = _by_kind(FIT)["Job"], _by_kind(FIT)["Service"]
    parsed = get_args_parser().parse_args(container_of(FIT)["command"][1:])
    assert int(parsed.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert job["spec"]["completionMode"] == "Indexed"
    (port,) = service["spec"]["ports"]
    assert parsed.rdzv_endpoint == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{port['port']}"
    assert _pod(FIT)["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_claim_of_a_fit_s_pods_is_made_and_all_of_them_may_write_to_it() -> None:
    claim = _by_kind(FIT)["PersistentVolumeClaim"]
    (named,) = [volume["persistentVolumeClaim"] for volume in _pod(FIT)["volumes"] if "persistentVolumeClaim" in volume]
    assert named == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_processes_run_dssm_assets_fit_for_the_day_of_the_job() -> None:
    container = container_of(FIT)
    parsed = get_args_parser().parse_args(container["command"][1:])
    assert (parsed.no_python, parsed.training_script) == (True, "dssm-assets")
    (day,) = [entry["value"] for entry in container["env"] if entry["name"] == "DSSM_DAY"]
    words = [word.replace("$(DSSM_DAY)", day) for word in parsed.training_script_args]
    assert build_parser().parse_args(words).day == day == "2026-02-15"
    # The image has the CPU's torch by default, so a GPU must not be reserved; each process has cores of its own.
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert int(parsed.nproc_per_node) <= int(container["resources"]["requests"]["cpu"])


def test_the_service_finds_the_pods_at_the_port_of_the_command() -> None:
    deployment, service, container = _by_kind(RECALL)["Deployment"], _by_kind(RECALL)["Service"], container_of(RECALL)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert container["command"][0] == "dssm-assets"
    parsed = build_parser().parse_args(container["command"][1:])
    (port,), (target,) = service["spec"]["ports"], container["ports"]
    assert parsed.host == "0.0.0.0"
    assert parsed.port == target["containerPort"] == port["port"]
    assert target["name"] == port["targetPort"]
    assert parsed.threads == int(container["resources"]["requests"]["cpu"])
    paths = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}


@pytest.mark.parametrize("name", [FIT, RECALL])
def test_pods_have_the_image_the_configuration_and_the_rights_of_the_code_location(name: str) -> None:
    container, server = container_of(name), container_of(SERVER)
    assert [container[key] for key in ("image", "envFrom")] == [server[key] for key in ("image", "envFrom")]
    mounts, theirs = ({mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]} for one in (container, server))
    assert theirs.items() <= mounts.items()
    assert set(mounts) == {volume["name"] for volume in _pod(name)["volumes"]}
    if name == RECALL:
        assert container["securityContext"] == server["securityContext"]
        assert _pod(RECALL)["securityContext"] == _pod(SERVER)["securityContext"]
        assert _pod(RECALL)["automountServiceAccountToken"] is False
