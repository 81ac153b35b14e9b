"""The Kubernetes job of a fit by several machines: its schema, and that its parts name each other and the code location."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import yaml
from torch.distributed.run import get_args_parser

from dssm_assets.cli import build_parser
from dssm_assets_tests.deploy.compose_file import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"


def _objects(name: str) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))}


def _pod() -> dict[str, Any]:
    return dict(_objects("fit_job.yaml")["Job"]["spec"]["template"]["spec"])


def _container() -> dict[str, Any]:
    (found,) = _pod()["containers"]
    return dict(found)


def test_every_object_fits_the_schema_of_kubernetes() -> None:
    found = _objects("fit_job.yaml")
    assert set(found) == {"Service", "PersistentVolumeClaim", "Job"}
    for item in found.values():
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_every_pod_meets_the_others_at_the_first() -> None:
    job, service = _objects("fit_job.yaml")["Job"], _objects("fit_job.yaml")["Service"]
    parsed = get_args_parser().parse_args(_container()["command"][1:])
    assert int(parsed.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert job["spec"]["completionMode"] == "Indexed"
    (port,) = service["spec"]["ports"]
    assert parsed.rdzv_endpoint == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{port['port']}"
    assert _pod()["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_claim_of_the_pods_is_made_and_all_of_them_may_write_to_it() -> None:
    claim = _objects("fit_job.yaml")["PersistentVolumeClaim"]
    (named,) = [volume["persistentVolumeClaim"] for volume in _pod()["volumes"] if "persistentVolumeClaim" in volume]
    assert named == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_processes_run_dssm_assets_fit_for_the_day_of_the_job() -> None:
    container = _container()
    parsed = get_args_parser().parse_args(container["command"][1:])
    assert (parsed.no_python, parsed.training_script) == (True, "dssm-assets")
    (day,) = [entry["value"] for entry in container["env"] if entry["name"] == "DSSM_DAY"]
    words = [word.replace("$(DSSM_DAY)", day) for word in parsed.training_script_args]
    assert build_parser().parse_args(words).day.isoformat() == day == "2026-02-15"
    # The image has the CPU's torch by default, so a GPU must not be reserved; each process has cores of its own.
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert int(parsed.nproc_per_node) <= int(container["resources"]["requests"]["cpu"])


def test_pods_have_the_image_the_configuration_and_the_environment_of_the_code_location() -> None:
    container = _container()
    (server,) = _objects("code_location.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == server["image"]
    assert container["envFrom"] == server["envFrom"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}.items() <= mounts.items()
    assert set(mounts) == {volume["name"] for volume in _pod()["volumes"]}
