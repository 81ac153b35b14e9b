"""The health of a run as reported to run monitoring: with a code server that has it, that lost it, and without one.

Runs without a code server are judged by their process: `test_run_owner.py`.
"""

from __future__ import annotations

import pytest
from dagster import DagsterInstance, DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import serialize_value

from dssm_assets.deployment.watched_launcher import WatchedRunLauncher

RUN = DagsterRun(job_name="daily_tables", run_id="11111111-2222-3333-4444-555555555555")


class _Server:
    """A code server that has some runs, or does not answer."""

    def __init__(self, run_ids: set[str] | None) -> None:
        self.run_ids = run_ids

    def can_cancel_execution(self, request: CanCancelExecutionRequest) -> str:
        if self.run_ids is None:
            raise DagsterUserCodeUnreachableError("Could not reach user code server")
        return serialize_value(CanCancelExecutionResult(can_cancel=request.run_id in self.run_ids))


def _status(monkeypatch: pytest.MonkeyPatch, server: _Server | None) -> WorkerStatus:
    monkeypatch.setattr(WatchedRunLauncher, "_get_grpc_client_for_termination", lambda self, run_id: server)
    launcher = WatchedRunLauncher()
    assert launcher.supports_check_run_worker_health
    with DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        return launcher.check_run_worker_health(RUN).status


def test_run_in_the_server_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _status(monkeypatch, _Server({RUN.run_id, "another"})) is WorkerStatus.RUNNING


def test_run_missing_in_the_server_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _status(monkeypatch, _Server({"another"})) is WorkerStatus.NOT_FOUND


def test_run_of_a_silent_server_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _status(monkeypatch, _Server(None)) is WorkerStatus.RUNNING


def test_run_outside_any_server_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _status(monkeypatch, None) is WorkerStatus.RUNNING
