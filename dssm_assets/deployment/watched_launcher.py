"""Dagster's default run launcher, extended to report a run as lost if its process has ended.

With the original, a run in a killed container stays "started", keeps its place in the queue and its pool, and is not retried.
"""

from __future__ import annotations

from typing import Any

from dagster import DagsterRun, DefaultRunLauncher

from dssm_assets.deployment.run_owner import check_run_health


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server. A run is healthy while its process lives."""

    supports_check_run_worker_health = True  # run monitoring calls it

    def check_run_worker_health(self, run: DagsterRun) -> Any:
        return check_run_health(self._instance, run)
