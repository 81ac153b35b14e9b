"""The fitted towers: weights, curves and what was found while they were fitted.

Belongs here: what a fit is made of and what is kept of it. Does not belong here: fitting (`core/training`), files and
processes of a fit (`fit_job`, `fit_process`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dssm_assets.core.config.training import Launcher
from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.statistics.bucketizer import FeatureRows, carried_rows
from dssm_assets.core.statistics.feature_config import collision_fracs
from dssm_assets.steps.feature_config import RunSettings, check_plan, towers_of
from dssm_assets.steps.workspace import StepResult, Workspace, check_built_from, day_before, digests
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore

if TYPE_CHECKING:
    from dssm_assets.core.training.distributed.ranks import Ranks
    from dssm_assets.core.training.loop import Progress
    from dssm_assets.steps.fit_job import FitJob, FitOutcome, WarmFiles

PROGRESS_SECONDS = 5.0


def dssm_model(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Fits the towers."""
    for ds in days:
        yield _dssm_model(workspace, ds)


def _dssm_model(workspace: Workspace, ds: str) -> StepResult:
    with _prepared(workspace, ds) as plan:
        if plan.settings.training.started_by is Launcher.EXTERNAL:
            return _taken(workspace, plan)
        if Path(plan.job.state).exists():
            workspace.log("a killed training left a state: it is taken up if configuration and inputs are the same")
        outcome = _outcome(workspace, plan)
        manifest = _published(workspace, plan, outcome)
    return _result(workspace, plan, manifest, outcome.report)


def fit_in_group(workspace: Workspace, ds: str, ranks: Ranks, node_rank: int) -> Manifest | None:
    """Fits the towers as one of many processes that run this at once; the first publishes them, the others return None.

    Args:
        workspace: the same configuration and store in every process.
        ds: the day.
        ranks: this process among all.
        node_rank: its number on its machine, of which the first fetches the files that all of them map.
    """
    from dssm_assets.steps.fit_job import run_job

    with ExitStack() as open_files:
        for turn in (True, False):
            if turn is (node_rank == 0):
                plan = open_files.enter_context(_prepared(workspace, ds))
            ranks.wait()
        outcome = run_job(plan.job, _progress(workspace), workspace.now, ranks, plan.folder)
        if outcome is None:
            return None
        return _published(workspace, plan, outcome, fit_key=plan.job.key, report=outcome.report)


@dataclass(frozen=True)
class _Plan:
    """A fit that can begin: its settings, what it is made from, its job, and a folder for the files on the way."""

    ds: str
    settings: RunSettings
    inputs: dict[str, str]
    job: FitJob
    folder: Path


@contextmanager
def _prepared(workspace: Workspace, ds: str) -> Iterator[_Plan]:
    settings, stored = towers_of(workspace, ds), workspace.need("train_samples", ds)
    check_plan(settings)
    with tempfile.TemporaryDirectory(prefix="dssm-fit-") as folder:
        warm, earlier = _warm_start(workspace, settings, ds, Path(folder))
        inputs = digests([stored, settings.manifest, *earlier])
        yield _Plan(ds, settings, inputs, _job(workspace, settings, stored, inputs, warm), Path(folder))


def _published(workspace: Workspace, plan: _Plan, outcome: FitOutcome, **facts: object) -> Manifest:
    from dssm_assets.steps.fit_job import forget

    told = {"seed": plan.settings.seed, **facts}
    manifest = workspace.artifacts.publish("dssm_model", plan.ds, outcome.stored, inputs=plan.inputs, facts=told)
    forget(plan.job)
    return manifest


def _taken(workspace: Workspace, plan: _Plan) -> StepResult:
    """Returns what processes that were started elsewhere have published for these settings and inputs.

    Raises:
        ProvenanceError: they have not, or of others.
    """
    ds = plan.ds
    standing = workspace.find("dssm_model", ds)
    if standing is None or standing.facts.get("fit_key") != plan.job.key:
        got = "none" if standing is None else "one of other settings or inputs, or of another launcher"
        name = _experiment(workspace)
        words = f"--day {ds}" if name is None else f"--day {ds} --experiment {name}"
        remedy = f"start `dssm-assets fit {words}` under torchrun on every machine (docs/training.md), then this again"
        where = f"dssm_model/{ds}, training.launcher external"
        raise ProvenanceError(Fault(where, "a model fitted with these settings and inputs", got, remedy))
    report: Any = standing.facts["report"]
    return _result(workspace, plan, standing, report)


def _result(workspace: Workspace, plan: _Plan, manifest: Manifest, report: dict[str, Any]) -> StepResult:
    from dssm_assets.core.evaluation.charts import loss_curve_png

    losses = json.loads(workspace.artifacts.read_bytes(manifest, ModelFile.LOSSES))
    curve = loss_curve_png(losses, report["validation_hit_rate"])
    facts = {**report, "planned_steps": plan.settings.plan.num_steps, "collision_frac": _collision_frac(workspace, plan.ds)}
    return StepResult(manifest, facts, images={"loss_curve": curve})


def _job(
    workspace: Workspace, settings: RunSettings, stored: Manifest, inputs: dict[str, str], warm: WarmFiles | None
) -> FitJob:
    from dssm_assets.steps.fit_job import FitJob

    sections = {"model": settings.model.model_dump(mode="json"), "training": settings.training.model_dump(mode="json")}
    ks = tuple(workspace.config.evaluation.k)
    told = {**sections, "seed": settings.seed, "ks": ks, "inputs": inputs}
    scratch = workspace.artifacts.cache / "fit_state" / workspace.config.name
    state = ".".join(filter(None, (stored.ds, _experiment(workspace), "state")))
    return FitJob(
        tables={
            file.name.removesuffix(".arrow"): str(workspace.artifacts.local_path(stored, file.name)) for file in stored.files
        },
        towers=settings.spec.to_json(),
        **sections,
        seed=settings.seed,
        ks=ks,
        key=hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
        state=str(scratch / state),
        plan=settings.plan,
        warm_start=warm,
    )


def _experiment(workspace: Workspace) -> str | None:
    """Returns the name of the experiment that the workspace is of; None: it is the standing one."""
    partitions = workspace.tables.partitions
    return partitions.name if isinstance(partitions, OverlayStore) else None


def _outcome(workspace: Workspace, plan: _Plan) -> FitOutcome:
    from dssm_assets.steps.fit_job import run_job
    from dssm_assets.steps.fit_process import run_in_processes

    progress, training = _progress(workspace), plan.settings.training
    if training.started_by is Launcher.TORCHRUN:
        return run_in_processes(plan.job, plan.folder, training.num_processes, progress)
    outcome = run_job(plan.job, progress, workspace.now)
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
    from dssm_assets.steps.fit_job import WarmFiles, save_rows

    if not settings.training.warm_start:
        return None, []
    last = day_before(ds, max(1, settings.training.validation_days))
    found = [day for day in workspace.tables.partitions.days("dssm_model") if day <= last]
    if not found:
        workspace.log(f"warm_start: no dssm_model up to {last}, the towers begin anew")
        return None, []
    model, samples = (workspace.need(name, found[-1]) for name in ("dssm_model", "train_samples"))
    features = [[workspace.need(name, day) for name in ("feature_config", "feature_counts")] for day in (ds, found[-1])]
    check_built_from(model, samples)
    check_built_from(samples, *features[1])
    today, earlier = (FeatureRows(*map(workspace.tables.read, manifests)) for manifests in features)
    save_rows(folder / "rows.npz", carried_rows(today, earlier))
    towers = workspace.artifacts.read_bytes(model, ModelFile.TOWERS).decode()
    weights = str(workspace.artifacts.local_path(model, ModelFile.WEIGHTS))
    return WarmFiles(model.key, weights, towers, str(folder / "rows.npz")), [model, *features[1]]


def _collision_frac(workspace: Workspace, ds: str) -> dict[str, float]:
    counts = workspace.tables.read(workspace.need("feature_counts", ds))
    collisions = collision_fracs(workspace.fg_spec, workspace.config.statistics, counts)
    return {name: round(frac, 6) for name, frac in collisions.items()}
