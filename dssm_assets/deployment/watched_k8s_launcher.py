"""Dagster's run launcher for Kubernetes, which leaves runs alone that it did not launch.

It looks for the Kubernetes job of each run in progress. A run of `dssm-assets materialize` in a pod of another purpose has
none, so run monitoring would mark it as failed while it works.
"""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult
from dagster._core.storage.tags import DOCKER_IMAGE_TAG
from dagster_k8s import K8sRunLauncher

from dssm_assets.deployment.run_owner import check_own_process


class WatchedK8sRunLauncher(K8sRunLauncher):
    """Launches runs as Kubernetes jobs; a run without one is judged by its own process."""

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Returns the health of a run's job, or of the process that works on it."""
        if not _has_job(run):
            return check_own_process(self._instance, run)
        health: CheckRunHealthResult = super().check_run_worker_health(run)
        return health

    def terminate(self, run_id: str) -> bool:
        """Terminates a run's job; returns False for a run without one, which stays as it is: only its process can end it."""
        run = self._instance.get_run_by_id(run_id)
        return (run is None or _has_job(run)) and bool(super().terminate(run_id))  # type: ignore[no-untyped-call]


def _has_job(run: DagsterRun) -> bool:
    """Returns whether the launcher has made a job for a run: before it does, it tags the run with the job's image."""
    return DOCKER_IMAGE_TAG in run.tags
