"""What a run finds of a fit by processes that something else has started (`training.launcher: external`)."""

from __future__ import annotations

from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.steps.dssm_model import FitPlan, experiment_name
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest


def find_published(workspace: Workspace, plan: FitPlan) -> Manifest:
    """Returns the model that processes started elsewhere have published for these settings and inputs."""
    ds, published = plan.ds, workspace.find("dssm_model", plan.ds)
    if published is None or published.facts.get("fit_key") != plan.job.key:
        got = "none" if published is None else "one fitted with other settings or inputs, or by another launcher"
        name = experiment_name(workspace)
        arguments = f"--day {ds}" if name is None else f"--day {ds} --experiment {name}"
        remedy = f"start `dssm-assets fit {arguments}` under torchrun on every machine (docs/training.md), then run this again"
        where = f"dssm_model/{ds}, training.launcher external"
        raise ProvenanceError(Fault(where, "a model fitted with these settings and inputs", got, remedy))
    return published
