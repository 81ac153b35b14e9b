"""When MLflow hears of a run: after a fit, and after the hit rates of its day. MLflow is imported where the configuration names a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    from dssm_assets.defs.asset_run import AssetRun
    from dssm_assets.steps.workspace import StepResult, Workspace

FIT, HIT_RATES = "dssm_model", "total_hit_rate"
_ERROR_CHARS: Final = 400


def on_run_start(workspace: Workspace) -> None:
    """Checks that MLflow is installed if the configuration names a server: before the fit, not after it.

    Raises:
        ConfigError: it is not.
    """
    if workspace.config.platform.mlflow_uri is not None and find_spec("mlflow") is None:
        remedy = "run pip install 'dssm-assets[mlflow]', or remove the key"
        raise ConfigError(Fault("configuration, key platform.mlflow_uri", "the package mlflow-skinny", "not installed", remedy))


def on_materialized(
    context: dg.AssetExecutionContext, run: AssetRun, workspace: Workspace, results: Sequence[StepResult]
) -> None:
    """Logs fits and hit rates to MLflow, and adds the URL of the MLflow run to the asset's metadata.

    The partitions are stored: if MLflow cannot be reached, a line of the log says so.
    """
    asset, uri = run.row.name, workspace.config.platform.mlflow_uri
    if uri is None or asset not in (FIT, HIT_RATES):
        return
    from dssm_assets.extras.mlflow_runs.model_runs import log_fit, log_hit_rates
    from dssm_assets.extras.mlflow_runs.tracking import open_tracking

    uri = uri.replace("{home}", str(workspace.loaded.home))
    for result in results:
        manifest, now_ms = result.manifest, round(time.time() * 1000)
        try:
            with open_tracking(uri, workspace.config.name) as tracking:
                if asset == FIT:
                    run_id = log_fit(tracking, workspace, manifest, now_ms, result.facts["seconds"])
                else:
                    run_id = log_hit_rates(tracking, workspace, manifest, now_ms)
                tracking.client.set_tag(run_id, f"dagster.{asset}", context.run.run_id)
                url = tracking.build_url(run_id)
        except Exception as error:  # no fault of MLflow's may fail the run of what is stored
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_ERROR_CHARS]
            workspace.log(f"stored, but not logged to MLflow: {reason}")
            continue
        workspace.log(f"MLflow run {url}")
        link = dg.MetadataValue.url(url) if url.startswith("http") else url
        context.add_asset_metadata({"mlflow_run": link}, run.scene.key(asset), partition_key=manifest.ds)
