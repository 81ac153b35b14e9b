"""The fitted towers: weights, curves and what was found while they were fitted.

Belongs here: what a fit is made of and what is kept of it. Does not belong here: fitting (`core/training`), files and
processes of a fit (`fit_job`, `fit_process`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dssm_assets.core.features.carried_rows import FeatureRows, carried_rows
from dssm_assets.core.features.feature_config import collision_fracs
from dssm_assets.steps.feature_config import RunSettings, towers_of
from dssm_assets.steps.workspace import StepResult, Workspace, check_made_from, day_before, digests
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.training.report import Progress
    from dssm_assets.steps.fit_job import FitJob, FitOutcome, WarmFiles

PROGRESS_SECONDS = 5.0


def dssm_model(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Fits the towers."""
    for ds in days:
        yield _dssm_model(workspace, ds)


def _dssm_model(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.charts import loss_curve_png
    from dssm_assets.steps.fit_job import LOSSES, forget

    settings, stored = towers_of(workspace, ds), workspace.need("train_samples", ds)
    made_from = [stored, settings.manifest]
    with tempfile.TemporaryDirectory(prefix="dssm-fit-") as folder:
        warm, earlier = _warm_start(workspace, settings, ds, Path(folder))
        inputs = digests([*made_from, *earlier])
        job = _job(workspace, settings, stored, inputs, warm)
        if Path(job.state).exists():
            workspace.log("a killed training left a state: it is taken up if configuration and inputs are the same")
        outcome = _outcome(workspace, job, settings, Path(folder))
    manifest = workspace.artifacts.publish("dssm_model", ds, outcome.files, inputs=inputs, facts={"seed": settings.seed})
    forget(job)
    curve = loss_curve_png(json.loads(outcome.files[LOSSES]), outcome.report["validation_hit_rate"])
    return StepResult(manifest, _facts(workspace, ds, outcome.report), images={"loss_curve": curve})


def _job(
    workspace: Workspace, settings: RunSettings, stored: Manifest, inputs: dict[str, str], warm: WarmFiles | None
) -> FitJob:
    from dssm_assets.steps.fit_job import FitJob

    sections = {"model": settings.model.model_dump(mode="json"), "training": settings.training.model_dump(mode="json")}
    ks = tuple(workspace.config.evaluation.k)
    told = {**sections, "seed": settings.seed, "ks": ks, "inputs": inputs}
    scratch = workspace.artifacts.cache / "fit_state" / workspace.config.name
    return FitJob(
        tables={
            file.name.removesuffix(".arrow"): str(workspace.artifacts.local_path(stored, file.name)) for file in stored.files
        },
        towers=settings.spec.to_json(),
        **sections,
        seed=settings.seed,
        ks=ks,
        key=hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
        state=str(scratch / f"{stored.ds}.state"),
        warm_start=warm,
    )


def _outcome(workspace: Workspace, job: FitJob, settings: RunSettings, folder: Path) -> FitOutcome:
    from dssm_assets.steps.fit_job import run_job
    from dssm_assets.steps.fit_process import run_in_processes

    progress = _progress(workspace)
    if settings.training.num_processes > 1:
        return run_in_processes(job, folder, settings.training.num_processes, progress)
    outcome = run_job(job, progress, workspace.now)
    assert outcome is not None  # of the only process
    return outcome


def _progress(workspace: Workspace) -> Callable[[Progress], None]:
    last = workspace.now()

    def progress(at: Progress) -> None:
        nonlocal last
        if at.step == at.steps or workspace.now() - last >= PROGRESS_SECONDS:
            last = workspace.now()
            phase = "" if at.phase == "fit" else f"{at.phase}: "
            workspace.log(
                f"{phase}step {at.step}/{at.steps} epoch {at.epoch + 1}, loss {at.loss:.4f}, "
                f"{at.samples_per_s:,.0f} samples/s, ETA {at.eta_s:.0f} s"
            )

    return progress


def _warm_start(workspace: Workspace, settings: RunSettings, ds: str, folder: Path) -> tuple[WarmFiles | None, list[Manifest]]:
    """Returns the earlier towers that the fit begins with, and what they and their rows are read from.

    The last model before the day, and with validation days the last whose own window ends before the first of them: else
    they would be scored on what they had learned.

    Raises:
        ProvenanceError: the earlier day's feature configuration is not the one that its model was made with.
    """
    from dssm_assets.steps.fit_job import MODEL, TOWERS, WarmFiles, save_rows

    if not settings.training.warm_start:
        return None, []
    last = day_before(ds, max(1, settings.training.validation_days))
    found = [day for day in workspace.tables.partitions.days("dssm_model") if day <= last]
    if not found:
        workspace.log(f"warm_start: no dssm_model up to {last}, the towers begin anew")
        return None, []
    model, samples = (workspace.need(name, found[-1]) for name in ("dssm_model", "train_samples"))
    features = [[workspace.need(name, day) for name in ("feature_config", "feature_counts")] for day in (ds, found[-1])]
    check_made_from(model, samples)
    check_made_from(samples, *features[1])
    today, earlier = (FeatureRows(*map(workspace.tables.read, manifests)) for manifests in features)
    save_rows(folder / "rows.npz", carried_rows(today, earlier))
    towers = workspace.artifacts.read_bytes(model, TOWERS).decode()
    weights = str(workspace.artifacts.local_path(model, MODEL))
    return WarmFiles(model.key, weights, towers, str(folder / "rows.npz")), [model, *features[1]]


def _facts(workspace: Workspace, ds: str, report: dict[str, Any]) -> dict[str, Any]:
    counts = workspace.tables.read(workspace.need("feature_counts", ds))
    collisions = collision_fracs(workspace.fg_spec, workspace.config.statistics, counts)
    return {**report, "collision_frac": {name: round(frac, 6) for name, frac in collisions.items()}}
