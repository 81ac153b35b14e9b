"""Dagster's default run launcher that also reports runs of ended processes.

With the default launcher alone, a run whose container is killed stays "started", occupies the queue and its pool, and is not retried.
"""

from __future__ import annotations

from typing import Any

from dagster import DagsterRun, DefaultRunLauncher

from dssm_assets.deployment.run_owner import check_run_health


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server; asks a run's own process for its health."""

    supports_check_run_worker_health = True  # run monitoring calls it

    def check_run_worker_health(self, run: DagsterRun) -> Any:
        return check_run_health(self._instance, run)
