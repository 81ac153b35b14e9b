"""Runs on Kubernetes as run monitoring sees them: with a job, with a lost one, and commands in pods of another purpose.

The cluster is a fake; the launcher, its client and run monitoring are Dagster's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from kubernetes.client import V1Job, V1JobStatus
from kubernetes.client.rest import ApiException

from dssm_assets.deployment.watched_k8s_launcher import WatchedK8sRunLauncher
from dssm_assets_tests.deploy.compose_file import DEPLOY
from dssm_assets_tests.deploy.test_run_owner import _monitor, _start_command

KUBECONFIG = """
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""


class _Cluster:
    """The jobs of a cluster: name -> status."""

    def __init__(self) -> None:
        self.jobs: dict[str, V1JobStatus] = {}

    def read_namespaced_job_status(self, name: str, namespace: str) -> SimpleNamespace:
        if name not in self.jobs:
            raise ApiException(status=404)
        return SimpleNamespace(status=self.jobs[name])

    def create_namespaced_job(self, body: V1Job, **_: object) -> None:
        self.jobs[body.metadata.name] = V1JobStatus(active=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Dagster home with the launcher of values.yaml; outside a cluster it needs a file that names one."""
    settings = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text(encoding="utf-8"))
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    (tmp_path / "cluster.yaml").write_text(KUBECONFIG, encoding="utf-8")
    launcher["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "cluster.yaml")}
    settings["run_launcher"] = launcher
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "hold").touch()
    return tmp_path


@pytest.fixture
def cluster(instance: dg.DagsterInstance) -> _Cluster:
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedK8sRunLauncher)
    launcher._api_client.batch_api = _Cluster()
    return launcher._api_client.batch_api


def test_command_in_a_pod_of_another_purpose_is_left_alone_and_its_run_ends_once_it_is_killed(
    home: Path, instance: dg.DagsterInstance, cluster: _Cluster
) -> None:
    process = _start_command(home)
    (run,) = instance.get_runs()
    assert _monitor(instance, run.run_id) is dg.DagsterRunStatus.STARTED, "no job has its name"
    assert instance.run_launcher.terminate(run.run_id) is False
    assert _monitor(instance, run.run_id) is dg.DagsterRunStatus.STARTED, "only its process can end it"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _monitor(instance, run.run_id) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (V1JobStatus(active=1), dg.DagsterRunStatus.STARTED),
        (V1JobStatus(failed=1), dg.DagsterRunStatus.FAILURE),
        (None, dg.DagsterRunStatus.FAILURE),
    ],
    ids=["works", "failed", "removed"],
)
def test_launched_run_is_judged_by_its_job(
    instance: dg.DagsterInstance, cluster: _Cluster, job: V1JobStatus | None, expected: dg.DagsterRunStatus
) -> None:
    code = RepositoryPythonOrigin(
        "python", ModuleCodePointer("dssm_assets.definitions", "defs"), container_image="dssm-assets:1"
    )
    run = instance.create_run_for_job(
        dg.job(name="empty")(lambda: None),
        status=dg.DagsterRunStatus.STARTED,
        job_code_origin=JobPythonOrigin("empty", code),
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    (name,) = cluster.jobs
    cluster.jobs = {} if job is None else {name: job}
    assert _monitor(instance, run.run_id) is expected
