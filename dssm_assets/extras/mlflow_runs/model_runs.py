"""What the MLflow run of a model says: the settings of its fit, losses and scores by epoch, the hit rates of its day.

A model has one run. Tags identify it: day, digest, and the experiment that the model is of. All but the duration of the fit is read from
stored partitions, so another process can make the run later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.section import Section
from dssm_assets.core.evaluation.evaluation_tables import MODEL, is_part
from dssm_assets.core.evaluation.rates import rows_of_cell
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.file_names import ModelFile
from dssm_assets.extras.mlflow_runs.tracking import Tracking
from dssm_assets.steps.feature_config import RunSettings, towers_of
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before, days_between
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore

REGULAR: Final = "regular"
"""The regular run's name among experiments."""
Metrics = Iterator[tuple[str, float, int]]
"""Name, value and step of each."""


def log_fit(tracking: Tracking, workspace: Workspace, model: Manifest, now_ms: int, seconds: float = 0.0) -> str:
    """Logs a fit as the run of its model; returns the run's id. A fit that makes the same model again has the same run.

    What is logged already is logged again with the same times, which changes nothing.

    Args:
        seconds: how long the fit took that has just ended; 0 for an earlier one.

    Raises:
        ProvenanceError: training_config has changed since the fit, so the settings of the fit are not known.
    """
    settings, duration_ms = towers_of(workspace, model.ds), round(seconds * 1000)
    check_built_from(model, settings.manifest)
    tags = _identify(workspace, model.ds, model.digest)
    run = tracking.find_run(tags)
    if run is None:
        experiment = tags["dssm.experiment"]
        name = model.ds if experiment == REGULAR else f"{model.ds} {experiment}"
        tags |= {"dssm.version": version("dssm-assets")}
        run = tracking.client.create_run(tracking.experiment_id, now_ms - duration_ms, tags, name)
    run_id, start_ms = run.info.run_id, run.info.start_time
    stored = {
        file.name: json.loads(workspace.artifacts.read_bytes(model, file.name))
        for file in model.files
        if file.name in (ModelFile.REPORT, ModelFile.LOSSES, ModelFile.VALIDATION)
    }
    params = list_params(settings, stored[ModelFile.REPORT]["samples"])
    _log(tracking, run_id, start_ms, list_fit_metrics(stored, is_refit=settings.training.refit), params)
    tracking.client.set_terminated(run_id, end_time=start_ms + duration_ms)
    return str(run_id)


def log_hit_rates(tracking: Tracking, workspace: Workspace, rates: Manifest, now_ms: int) -> str:
    """Adds the hit rates of a day to the run of their model, which is made if there is none; returns the run's id.

    Of hit rates that are logged again, MLflow shows the newest.

    Raises:
        ProvenanceError: an input has changed since, so these are not the hit rates of the stored vectors or the stored model.
    """
    counts, vectors = (workspace.need(name, rates.ds) for name in ("hit_counts", "item_vectors"))
    check_built_from(rates, counts)
    check_built_from(counts, vectors)
    run = tracking.find_run(_identify(workspace, rates.ds, vectors.inputs[f"dssm_model/{rates.ds}"]))
    if run is not None and run.info.status == "FINISHED":
        run_id: str = run.info.run_id
    else:
        model = workspace.need("dssm_model", rates.ds)
        check_built_from(vectors, model)
        run_id = log_fit(tracking, workspace, model, now_ms)
    rows = workspace.tables.read(rates)
    _log(tracking, run_id, now_ms, list_hit_rates(rows, workspace.config.evaluation.k[-1]), {})
    return run_id


def _identify(workspace: Workspace, ds: str, digest: str) -> dict[str, str]:
    store = workspace.tables.partitions
    experiment = store.name if isinstance(store, OverlayStore) else REGULAR
    return {"dssm.day": ds, "dssm.model": digest, "dssm.experiment": experiment}


def _log(tracking: Tracking, run_id: str, at_ms: int, metrics: Metrics, params: Mapping[str, str]) -> None:
    from mlflow.entities import Metric, Param

    tracking.client.log_batch(
        run_id,
        [Metric(name, value, at_ms, step) for name, value, step in metrics],
        [Param(name, value) for name, value in params.items()],
    )


def list_params(settings: RunSettings, samples: int) -> dict[str, str]:
    """Returns the settings that a fit read, by key of the configuration, and how much it had to learn from."""
    window = days_between(settings.first_day, day_before(settings.manifest.ds))
    sides = Counter(feature.side for feature in settings.spec.features)
    counts = {"seed": settings.seed, "window.days": len(window), "samples": samples}
    counts |= {f"features.{side}": count for side, count in sides.items()}
    sections = [*_flatten("model", settings.model), *_flatten("training", settings.training)]
    return {name: str(count) for name, count in counts.items()} | dict(sections)


def _flatten(name: str, section: Section) -> Iterator[tuple[str, str]]:
    """Yields the keys that have a value, those of sections inside with their whole name; lists and mappings are JSON."""
    plain = section.model_dump(mode="json", exclude_none=True)
    for key, value in section:
        if isinstance(value, Section):
            yield from _flatten(f"{name}.{key}", value)
        elif key in plain:
            yield f"{name}.{key}", plain[key] if isinstance(plain[key], str) else json.dumps(plain[key])


def list_fit_metrics(stored: Mapping[str, Any], *, is_refit: bool) -> Metrics:
    """Yields the mean loss of each epoch, and what validation days said of it; the step is the epoch, from 1.

    Args:
        stored: name -> content of the model's files of report, losses and, with validation days, the search.
        is_refit: after a search the towers were fitted again, for its best number of epochs; else the losses are of the search.
    """
    search = stored.get(ModelFile.VALIDATION, {"scores": []})
    scores, epochs = search["scores"], stored[ModelFile.REPORT]["epochs"]
    yield from _average_epochs("loss", stored[ModelFile.LOSSES], len(scores) if scores and not is_refit else epochs)
    if scores and is_refit:
        yield from _average_epochs("search_loss", search["loss_by_step"], len(scores))
    for score in scores:
        yield "validation_hit_rate", score["hit_rate"], score["epoch"]
        if score["prior"] is not None:
            yield "validation_hit_rate_without_prior", score["plain_hit_rate"], score["epoch"]


def _average_epochs(name: str, losses: Sequence[float], epochs: int) -> Metrics:
    for epoch, of_epoch in enumerate(np.array_split(losses, epochs), 1):
        yield name, float(np.mean(of_epoch)), epoch


def list_hit_rates(total: pa.Table, k: int) -> Metrics:
    """Yields hit_rate@k of each scorer over all items, of warm and of all pairs; `vectors` are those of the model.

    MLflow's UI shows names that are equal up to the slash together.
    """
    for population in (Population.WARM, Population.ALL):
        for scorer, row in rows_of_cell(total, Scope.ALL, k, population).items():
            if not is_part(scorer):
                yield f"hit_rate_{k}_{population}/{'vectors' if scorer == MODEL else scorer}", row["hit_rate"], 0
