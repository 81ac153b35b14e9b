"""Dagster's default run launcher, which also reports runs whose process has ended.

With the default launcher alone, run monitoring cannot ask for the health of a run: if its container is killed it stays "started",
occupies the queue and its pool, and is not retried.
"""

from __future__ import annotations

from dagster import DagsterRun, DefaultRunLauncher

from dssm_assets.deployment.run_owner import RunHealth, check_run_health


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server; a run is judged by the process that works on it."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Returns True: run monitoring calls `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> RunHealth:  # type: ignore[override]  # Dagster's class is not public
        return check_run_health(self._instance, run)
