"""Logs each fit as an MLflow run, and later adds the hit rates. Without a server in the configuration, MLflow is not imported.

A model's run is found by its day, digest and experiment. All values are read from stored partitions. So if the run is missing
when the hit rates arrive, it is created then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import numpy as np

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.evaluation_tables import is_part
from dssm_assets.core.evaluation.rates import rows_of_cell
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.names import Population, Scope
from dssm_assets.steps.workspace import StepResult, Workspace, check_built_from
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from dssm_assets.defs.asset_run import AssetRun

FIT, HIT_RATES = "dssm_model", "total_hit_rate"
VARIABLES: Final[Mapping[str, str]] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables of our calls, unless they are set. By default MLflow waits for minutes, reports its usage, and prints."""


def on_run_start(workspace: Workspace) -> None:
    """Checks before the fit that MLflow is installed, if the configuration names a server.

    Raises:
        ConfigError: MLflow is not installed.
    """
    if workspace.config.platform.mlflow_uri is not None and find_spec("mlflow") is None:
        remedy = "run pip install 'dssm-assets[mlflow]', or remove the key"
        raise ConfigError(Fault("configuration, key platform.mlflow_uri", "the package mlflow-skinny", "not installed", remedy))


def on_materialized(
    context: dg.AssetExecutionContext, run: AssetRun, workspace: Workspace, results: Sequence[StepResult]
) -> None:
    """Logs a day's fit or hit rates, and adds the URL of the MLflow run to the asset's metadata.

    If MLflow cannot be reached, the Dagster run logs that and does not fail.
    """
    asset, uri = run.row.name, workspace.config.platform.mlflow_uri
    if uri is None or asset not in (FIT, HIT_RATES):
        return
    for result in results:
        try:
            with set_variables():
                url = _log_result(workspace, uri.replace("{home}", str(workspace.loaded.home)), result, context.run.run_id)
        except Exception as error:  # the partitions are stored, so a fault of MLflow may not fail the run
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            workspace.log(f"stored, but not logged to MLflow: {reason}")
        else:
            workspace.log(f"MLflow run {url}")
            link = dg.MetadataValue.url(url) if url.startswith("http") else url
            context.add_asset_metadata({"mlflow_run": link}, run.scene.key(asset), partition_key=result.manifest.ds)


@contextmanager
def set_variables() -> Iterator[None]:
    """Sets the missing ones of VARIABLES until the end of the block."""
    unset = {name: value for name, value in VARIABLES.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def _log_result(workspace: Workspace, uri: str, result: StepResult, dagster_run_id: str) -> str:
    """Logs the result and returns the URL of the MLflow run, or its id if the runs are stored in a folder."""
    from mlflow import MlflowClient

    client, now_ms, manifest = MlflowClient(uri), round(time.time() * 1000), result.manifest
    model = manifest if manifest.asset == FIT else _find_scored_model(workspace, manifest)
    seconds = result.facts["seconds"] if manifest.asset == FIT else 0
    run = _find_or_create_run(client, workspace, model, now_ms - round(seconds * 1000))
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        _log_fit(client, run, workspace, model)
    if manifest.asset == HIT_RATES:
        _log_hit_rates(client, run, workspace, manifest, now_ms)
    client.set_tag(run_id, f"dagster.{manifest.asset}", dagster_run_id)
    is_server = uri.startswith("http")
    return f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}" if is_server else str(run_id)


def _find_scored_model(workspace: Workspace, rates: Manifest) -> Manifest:
    """Returns the manifest of the model behind some hit rates. ProvenanceError: an input has been stored again since."""
    inputs = [workspace.need(asset, rates.ds) for asset in ("hit_counts", "item_vectors", FIT)]
    for built, built_from in pairwise([rates, *inputs]):
        check_built_from(built, built_from)
    return inputs[-1]


def _find_or_create_run(client: MlflowClient, workspace: Workspace, model: Manifest, start_ms: int) -> Run:
    scene, store = workspace.config.name, workspace.tables.partitions
    found = client.get_experiment_by_name(scene)
    experiment_id = client.create_experiment(scene) if found is None else found.experiment_id
    experiment = store.name if isinstance(store, OverlayStore) else "regular"
    tags = {"dssm.day": model.ds, "dssm.model": model.digest, "dssm.experiment": experiment}
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs = client.search_runs([experiment_id], condition, max_results=1)
    return runs[0] if runs else client.create_run(experiment_id, start_ms, tags, f"{model.ds} {experiment}")


def _log_fit(client: MlflowClient, run: Run, workspace: Workspace, model: Manifest) -> None:
    from mlflow.entities import Metric, Param

    report, losses = (json.loads(workspace.artifacts.read_bytes(model, name)) for name in (ModelFile.REPORT, ModelFile.LOSSES))
    settings: dict[str, Any] = {"seed": model.facts["seed"], "samples": report["samples"]}
    for section, values in report["configuration"].items():
        settings |= {f"{section}.{key}": value for key, value in values.items()}
    scores, is_refit = report["validation_hit_rate"], report["configuration"]["training"]["refit"]
    # Without a second fit after the search for the best epoch, the losses cover all epochs, also the ones after the best.
    epochs = len(scores) if scores and not is_refit else report["epochs"]
    by_epoch = {"loss": [np.mean(of_epoch) for of_epoch in np.array_split(losses, epochs)], "validation_hit_rate": scores}
    metrics = [
        Metric(name, float(value), run.info.start_time, epoch)
        for name, values in by_epoch.items()
        for epoch, value in enumerate(values, 1)
    ]
    client.log_batch(run.info.run_id, metrics, [Param(name, str(value)) for name, value in settings.items()])
    client.set_terminated(run.info.run_id)


def _log_hit_rates(client: MlflowClient, run: Run, workspace: Workspace, rates: Manifest, now_ms: int) -> None:
    """Logs each scorer's hit_rate@k over warm pairs and over all pairs. MLflow groups metric names by the part before the slash."""
    from mlflow.entities import Metric

    rows, k = workspace.tables.read(rates), workspace.config.evaluation.k[-1]
    metrics = [
        Metric(f"hit_rate_{k}_{population}/{scorer}", row["hit_rate"], now_ms, 0)
        for population in (Population.WARM, Population.ALL)
        for scorer, row in rows_of_cell(rows, Scope.ALL, k, population).items()
        if not is_part(scorer)
    ]
    client.log_batch(run.info.run_id, metrics)
