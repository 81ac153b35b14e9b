"""The command `dssm-assets fit`. torchrun starts it in several processes, which fit a day's towers together."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config
from dssm_assets.commands.day_argument import add_day_argument
from dssm_assets.storage.config_choice import choose_config

if TYPE_CHECKING:
    from dssm_assets.core.training.compute import Ranks
    from dssm_assets.steps.dssm_model import FitPlan
    from dssm_assets.steps.workspace import Workspace
    from dssm_assets.storage.manifest import Manifest


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "fit",
        group=Group.RUN,
        help="fit the towers of a day together with other processes, started by torchrun on one machine or several",
        epilog="On each of 2 machines with 4 processes: torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d "
        "--rdzv-endpoint HOST:29500 --no-python dssm-assets fit --day DAY. The first process publishes the model; a run of "
        "dssm_model with training.launcher external uses it.",
    )
    add_day_argument(parser, "the days with train_samples")
    parser.add_argument("--experiment", help="name of an experiment; the fit uses its settings, stored by a run of dssm_model")
    add_config_arguments(parser)
    parser.set_defaults(command=_fit)


def _fit(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import Fault, InputError
    from dssm_assets.definitions import load_scene
    from dssm_assets.extras.several_processes.fit_process import process_group
    from dssm_assets.installed_extras import load_extra
    from dssm_assets.steps.feature_config import towers_of
    from dssm_assets.steps.workspace import open_workspace

    environment = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    missing = sorted(name for name, value in environment.items() if not value)
    if missing:
        remedy = "start it as `torchrun --nproc-per-node N --no-python dssm-assets fit --day DAY`"
        raise InputError(
            Fault("environment of dssm-assets fit", "the variables that torchrun sets", f"no {', '.join(missing)}", remedy)
        )
    is_first = environment["RANK"] == "0"
    choice = announce_config(parsed) if is_first else choose_config(parsed.config, parsed.home)
    scene = load_scene(parsed.scene, choice)
    workspace = open_workspace(scene.loaded, lambda line: print(line, flush=True) if is_first else None)
    ds = workspace.tables.partitions.choose_day("train_samples", parsed.day)
    if parsed.experiment is not None:
        workspace = load_extra("experiments", "experiments").reopen_experiment(workspace, parsed.experiment, ds)
    with process_group(towers_of(workspace, ds).training.device) as ranks:
        manifest = _fit_in_group(workspace, ds, ranks, int(environment["LOCAL_RANK"]))
    if manifest is not None:
        print(f"published {manifest.key}, fitted by {environment['WORLD_SIZE']} processes", flush=True)
    return 0


def _fit_in_group(workspace: Workspace, ds: str, ranks: Ranks, local_rank: int) -> Manifest | None:
    """Fits the towers together with the other processes. The first one publishes the model, the others return None.

    The first process of each machine downloads the files, and all processes of the machine map them.
    """
    from dssm_assets.steps.dssm_model import prepare_fit, progress_log, publish_fit
    from dssm_assets.steps.fit_job import run_job

    with ExitStack() as open_files:
        for is_downloading in (True, False):
            if is_downloading is (local_rank == 0):
                plan = open_files.enter_context(prepare_fit(workspace, ds))
            ranks.wait()
        outcome = run_job(plan.job, progress_log(workspace), workspace.now, plan.folder, ranks)
        if outcome is None:
            return None
        return publish_fit(workspace, plan, outcome, fit_key=plan.job.key, report=outcome.report)


def find_published(workspace: Workspace, plan: FitPlan) -> Manifest:
    """Returns the model that external processes (`training.launcher: external`) have published for these settings and inputs."""
    from dssm_assets.core.errors import Fault, ProvenanceError
    from dssm_assets.steps.dssm_model import experiment_name

    ds, published = plan.ds, workspace.find("dssm_model", plan.ds)
    if published is None or published.facts.get("fit_key") != plan.job.key:
        got = "none" if published is None else "one fitted with other settings or inputs, or by another launcher"
        name = experiment_name(workspace)
        arguments = f"--day {ds}" if name is None else f"--day {ds} --experiment {name}"
        remedy = f"start `dssm-assets fit {arguments}` under torchrun on every machine (docs/training.md), then run this again"
        where = f"dssm_model/{ds}, training.launcher external"
        raise ProvenanceError(Fault(where, "a model fitted with these settings and inputs", got, remedy))
    return published
