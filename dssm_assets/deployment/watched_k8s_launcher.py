"""Dagster's run launcher for Kubernetes, changed so that it does not touch runs launched by others.

The original looks for the Kubernetes job of each run in progress. A run of `dssm-assets materialize` in another pod has no such
job, so run monitoring would mark the run as failed while it works.
"""

from __future__ import annotations

from typing import Any, Final

from dagster import DagsterRun
from dagster_k8s import K8sRunLauncher

from dssm_assets.deployment.run_owner import check_run_health

_IMAGE_TAG: Final = "dagster/image"
"""The launcher tags a run with the image of its job, before it makes the job."""


class WatchedK8sRunLauncher(K8sRunLauncher):
    """Launches runs as Kubernetes jobs. A run without such a job is healthy while its process lives."""

    def check_run_worker_health(self, run: DagsterRun) -> Any:
        return super().check_run_worker_health(run) if _IMAGE_TAG in run.tags else check_run_health(self._instance, run)

    def terminate(self, run_id: str) -> bool:
        """Terminates a run's Kubernetes job. Returns False for a run without such a job: only its own process can end it."""
        run = self._instance.get_run_by_id(run_id)
        return (run is None or _IMAGE_TAG in run.tags) and bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
