"""Dagster's default run launcher, which also reports runs whose process was killed.

With the default launcher, runs are processes of the code server, and run monitoring cannot ask for their health: a
run whose container is killed stays "started" forever, occupies the queue and its pool, and is not retried.
"""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from dssm_assets.deployment.run_owner import check_own_process


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, and reports runs whose process is gone."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Returns True: run monitoring calls `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Returns whether the process of a run still exists.

        A code server that does not answer proves nothing: it may be finishing its runs before it stops. Once one answers, in
        the same container or a new one, a run that it does not have is lost. A run that no code server launched, such as one of
        `dssm-assets materialize`, is lost if its own process is dead; without a sign of that it is left alone.
        """
        client: DagsterGrpcClient | None = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return check_own_process(self._instance, run)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return check_own_process(self._instance, run)
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server that ran it was replaced or killed")
