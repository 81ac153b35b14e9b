"""The step of dssm_model: fits the towers and publishes weights, loss curve and report.

Belongs here: the choice of a fit's partitions, and its publication. Does not belong here: fitting (`core/training`), the files
of a fit (`fit_job`), its processes (`extras/several_processes`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dssm_assets.core.config.training import Launcher
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.progress import keep_interval
from dssm_assets.core.statistics.bucketizer import Bucketizer, match_rows
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.installed_extras import load_extra
from dssm_assets.steps.feature_config import RunSettings, towers_of
from dssm_assets.steps.fit_job import FitJob, FitOutcome, WarmFiles, map_train_data, remove_state, run_job, save_carried_rows
from dssm_assets.steps.workspace import StepResult, Workspace, check_built_from, day_before, digests, each_day
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore


@each_day
def dssm_model(workspace: Workspace, ds: str) -> StepResult:
    with prepare_fit(workspace, ds) as plan:
        if plan.settings.training.started_by is Launcher.EXTERNAL:
            manifest = load_extra("several_processes", "command").find_published(workspace, plan)
            return _step_result(workspace, plan, manifest, manifest.facts["report"])
        if Path(plan.job.state).exists():
            workspace.log("found the state of a killed fit; it is resumed if configuration and inputs are the same")
        outcome = _run_fit(workspace, plan)
        manifest = publish_fit(workspace, plan, outcome)
    return _step_result(workspace, plan, manifest, outcome.report)


@dataclass(frozen=True)
class FitPlan:
    """A fit with checked inputs, and an empty `folder` for its files."""

    ds: str
    settings: RunSettings
    inputs: dict[str, str]
    job: FitJob
    folder: Path


@contextmanager
def prepare_fit(workspace: Workspace, ds: str) -> Iterator[FitPlan]:
    """Yields the plan of a day's fit. Its folder is removed afterwards."""
    settings, samples = towers_of(workspace, ds), workspace.need("train_samples", ds)
    with workspace.tables.partitions.staging() as folder:
        warm, earlier = _warm_start(workspace, settings, ds, folder)
        inputs = digests([samples, settings.manifest, *earlier])
        yield FitPlan(ds, settings, inputs, _new_job(workspace, settings, samples, inputs, warm), folder)


def open_train_data(workspace: Workspace, samples: Manifest, spec: TowerSpec) -> TrainData:
    """Memory-maps train_samples for towers of a specification."""
    return map_train_data(_local_tables(workspace, samples), spec)


def _local_tables(workspace: Workspace, samples: Manifest) -> dict[str, str]:
    return {file.name.removesuffix(".arrow"): str(workspace.artifacts.local_path(samples, file.name)) for file in samples.files}


def _run_fit(workspace: Workspace, plan: FitPlan) -> FitOutcome:
    progress, training = progress_log(workspace), plan.settings.training
    if training.started_by is Launcher.TORCHRUN:
        fit_process = load_extra("several_processes", "fit_process")
        done: FitOutcome = fit_process.run_in_processes(plan.job, plan.folder, training.num_processes, progress)
        return done
    outcome = run_job(plan.job, progress, workspace.now, plan.folder)
    assert outcome is not None  # a single process is the first
    return outcome


def publish_fit(workspace: Workspace, plan: FitPlan, outcome: FitOutcome, **facts: object) -> Manifest:
    """Publishes the fitted towers with some facts, then removes the saved state of the fit."""
    facts = {"seed": plan.settings.seed, **facts}
    manifest = workspace.artifacts.publish("dssm_model", plan.ds, outcome.files, inputs=plan.inputs, facts=facts)
    remove_state(Path(plan.job.state))
    return manifest


def _step_result(workspace: Workspace, plan: FitPlan, manifest: Manifest, report: dict[str, Any]) -> StepResult:
    from dssm_assets.core.evaluation.charts import loss_curve_png  # not at the top: no fit needs matplotlib in its memory

    for border in report["search_borders"]:
        workspace.log(border)
    losses = json.loads(workspace.artifacts.read_bytes(manifest, ModelFile.LOSSES))
    curve = loss_curve_png(losses, report["validation_hit_rate"])
    return StepResult(manifest, {**report, "planned_steps": plan.settings.plan.num_steps}, images={"loss_curve": curve})


def _new_job(
    workspace: Workspace, settings: RunSettings, samples: Manifest, inputs: dict[str, str], warm: WarmFiles | None
) -> FitJob:
    sections = {"model": settings.model.model_dump(mode="json"), "training": settings.training.model_dump(mode="json")}
    ks = tuple(workspace.config.evaluation.k)
    key_parts = {**sections, "seed": settings.seed, "ks": ks, "inputs": inputs}
    states = workspace.artifacts.cache / "fit_state" / workspace.config.name
    state_name = ".".join(filter(None, (samples.ds, experiment_name(workspace), "state")))
    return FitJob(
        tables=_local_tables(workspace, samples),
        towers=settings.spec.to_json(),
        **sections,
        seed=settings.seed,
        ks=ks,
        key=hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest(),
        state=str(states / state_name),
        plan=settings.plan,
        warm_start=warm,
        plugins=tuple(workspace.config.plugins),
    )


def experiment_name(workspace: Workspace) -> str | None:
    partitions = workspace.tables.partitions
    return partitions.name if isinstance(partitions, OverlayStore) else None


def progress_log(workspace: Workspace) -> Callable[[Progress], None]:
    """Returns a function for `FitContext.progress`. It logs the progress of a fit every few seconds."""
    is_due = keep_interval(workspace.now())

    def log_progress(at: Progress) -> None:
        if is_due(workspace.now()) or at.step == at.steps:
            phase = "" if at.phase == "fit" else f"{at.phase}: "
            left = "" if at.eta_s is None else f", ETA {at.eta_s:.0f} s"
            if at.eta_at_most_s != at.eta_s:
                left += f", at most {at.eta_at_most_s:.0f} s"
            workspace.log(
                f"{phase}step {at.step}/{at.steps} epoch {at.epoch + 1}, loss {at.loss:.4f}, {at.samples_per_s:,.0f} samples/s{left}"
            )

    return log_progress


def _warm_start(workspace: Workspace, settings: RunSettings, ds: str, folder: Path) -> tuple[WarmFiles | None, list[Manifest]]:
    """Returns the earlier towers to start from, and the artifacts that they and their rows were built from.

    They come from the latest model before the day. If there are validation days, the window of that model must end before them.
    Otherwise the new towers would be scored on days that they have learned from.
    """
    if not settings.training.warm_start:
        return None, []
    last = day_before(ds, max(1, settings.training.validation_days))
    earlier_days = [day for day in workspace.tables.partitions.days("dssm_model") if day <= last]
    if not earlier_days:
        workspace.log(f"warm_start: no dssm_model up to {last}, the towers start with random weights")
        return None, []
    earlier_day = earlier_days[-1]
    model, samples = (workspace.need(name, earlier_day) for name in ("dssm_model", "train_samples"))
    features = [[workspace.need(name, day) for name in ("feature_config", "feature_counts")] for day in (ds, earlier_day)]
    check_built_from(model, samples)
    check_built_from(samples, *features[1])
    today, earlier = (Bucketizer(*map(workspace.tables.read, manifests)) for manifests in features)
    rows = folder / "rows.npz"
    save_carried_rows(rows, match_rows(today, earlier))
    towers = workspace.artifacts.read_bytes(model, ModelFile.TOWERS).decode()
    weights = str(workspace.artifacts.local_path(model, ModelFile.WEIGHTS))
    return WarmFiles(model.key, weights, towers, str(rows)), [model, *features[1]]
