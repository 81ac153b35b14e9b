"""A fit by processes that something else has started together: what each of them does, and what a run finds afterwards."""

from __future__ import annotations

from contextlib import ExitStack

from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.training.compute import Ranks
from dssm_assets.steps.dssm_model import FitPlan, experiment_name, fit_progress_log, prepare_fit, publish_fit
from dssm_assets.steps.fit_job import run_job
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


def fit_in_group(workspace: Workspace, ds: str, ranks: Ranks, node_rank: int) -> Manifest | None:
    """Fits the towers as one of several processes that call this together; the first publishes them, the others return None.

    Args:
        workspace: the same configuration and store in every process.
        node_rank: its rank on its machine. Rank 0 downloads the files, which all processes of the machine then map.
    """
    with ExitStack() as open_files:
        for is_downloading in (True, False):
            if is_downloading is (node_rank == 0):
                plan = open_files.enter_context(prepare_fit(workspace, ds))
            ranks.wait()
        outcome = run_job(plan.job, fit_progress_log(workspace), workspace.now, plan.folder, ranks)
        if outcome is None:
            return None
        return publish_fit(workspace, plan, outcome, fit_key=plan.job.key, report=outcome.report)


def find_published(workspace: Workspace, plan: FitPlan) -> Manifest:
    """Returns the model that processes elsewhere have published for these settings and inputs."""
    ds, published = plan.ds, workspace.find("dssm_model", plan.ds)
    if published is None or published.facts.get("fit_key") != plan.job.key:
        got = "none" if published is None else "one fitted with other settings or inputs, or by another launcher"
        name = experiment_name(workspace)
        arguments = f"--day {ds}" if name is None else f"--day {ds} --experiment {name}"
        remedy = f"start `dssm-assets fit {arguments}` under torchrun on every machine (docs/training.md), then run this again"
        where = f"dssm_model/{ds}, training.launcher external"
        raise ProvenanceError(Fault(where, "a model fitted with these settings and inputs", got, remedy))
    return published
