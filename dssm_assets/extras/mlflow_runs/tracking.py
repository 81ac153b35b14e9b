"""Calls of MLflow that end within seconds and leave its global state as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS: Final[Mapping[str, str]] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow during our calls, where they are not set: its own tries take minutes, it reports its use to its maker, and it prints."""


@dataclass(frozen=True)
class Tracking:
    """An MLflow experiment: the runs of one scene."""

    client: MlflowClient
    uri: str
    experiment_id: str

    def find_run(self, tags: Mapping[str, str]) -> Any:
        """Returns the newest run with these tags that is not deleted, None if there is none."""
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self.client.search_runs([self.experiment_id], condition, max_results=1, order_by=["start_time DESC"])
        return next(iter(found), None)

    def build_url(self, run_id: str) -> str:
        """Returns the URL of a run's page; its id if the runs are in a file."""
        return (
            f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"
            if self.uri.startswith("http")
            else run_id
        )


@contextmanager
def open_tracking(uri: str, experiment: str) -> Iterator[Tracking]:
    """Opens an MLflow experiment, which is made if there is none.

    Raises:
        MlflowException: the server does not answer in time, or refuses.
    """
    unset = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in unset})
    try:
        from mlflow import MlflowClient, MlflowException

        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        try:
            experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
        except MlflowException:
            found = client.get_experiment_by_name(experiment)
            if found is None:  # else another process has just made it
                raise
            experiment_id = found.experiment_id
        yield Tracking(client, uri, experiment_id)
    finally:
        for name in unset:
            del os.environ[name]
