"""`dssm-assets experiment`, `experiments` and `tune`: try settings without changing the regular run, compare, adopt and search them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config, load_announced_scene
from dssm_assets.commands.day_argument import add_day_argument, day_argument
from dssm_assets.core.days import DAY_FORMS, LATEST

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace

_EPILOG = (
    "Makes only the assets that depend on the settings, in experiments/NAME of the storage. All other tables are read from the regular "
    "run, which the day must have. Keys: any of the sections model, training, statistics, negative_items and channels, and evaluation.k. "
    "Values are YAML. An existing experiment keeps its settings unless --set changes them."
)


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "experiment", group=Group.RUN, help="run a day with other settings next to the regular run", epilog=_EPILOG
    )
    name_help = "name of the experiment; `adopt NAME` writes its settings into the configuration"
    parser.add_argument("name", nargs="+", metavar="NAME", help=name_help)
    set_help = "a setting, repeatable: model.prior=true"
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=set_help)
    parser.add_argument(
        "--from",
        dest="first",
        type=day_argument,
        metavar="DAY",
        help=f"first evaluation day, {DAY_FORMS} of the evaluated days",
    )
    parser.add_argument("--to", dest="last", type=day_argument, metavar="DAY", help="last evaluation day (default: the first)")
    add_config_arguments(parser)
    parser.set_defaults(command=_experiment)
    listed = commands.add_parser("experiments", group=Group.LOOK, help="compare the experiments of a day with the regular run")
    add_day_argument(listed, "the days with experiments", LATEST)
    listed.add_argument("-k", type=int, help="length of the lists (default: the longest)")
    add_config_arguments(listed)
    listed.set_defaults(command=_experiments)
    tuned = commands.add_parser(
        "tune",
        group=Group.RUN,
        help="search settings on the days before an evaluation day; needs the extra `tune`",
        epilog="Each trial is an experiment <study>_0000, <study>_0001, ... The first one is the configuration as it is. A "
        "stopped study goes on when the command is started again; a larger --trials continues it.",
    )
    tuned.add_argument("--trials", type=int, default=20, help="total number of trials of the study (default: 20)")
    add_day_argument(tuned, "the days with a model", LATEST)
    tuned.add_argument("--study", default="tuned", help="name of the study: small letters, digits and _ (default: tuned)")
    tuned.add_argument("--seed", type=int, default=0, help="seed of the proposals (default: 0)")
    add_config_arguments(tuned)
    tuned.set_defaults(command=_tune)


def _experiment(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault

    is_adopted = parsed.name[0] == "adopt" and len(parsed.name) == 2
    if not is_adopted and len(parsed.name) > 1:
        got = " ".join(parsed.name)
        raise ConfigError(Fault("experiment", "one name, or adopt and a name", repr(got), "give one name"))
    if is_adopted and (parsed.settings or parsed.first or parsed.last):
        raise ConfigError(Fault("experiment adopt", "a name alone", "--set, --from or --to", "leave them out"))
    if not is_adopted and parsed.first is None:
        raise ConfigError(Fault("experiment", "--from, the evaluation day", "none", "add --from DAY"))
    return _adopt(parsed) if is_adopted else _run(parsed)


def _run(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.experiments.experiments import parse_assignments

    entered = parse_assignments(parsed.settings)
    choice = announce_config(parsed)
    from dssm_assets import terminal
    from dssm_assets.definitions import load_scene
    from dssm_assets.extras.experiments import experiment_runs
    from dssm_assets.steps.workspace import days_between, open_workspace

    scene = load_scene(parsed.scene, choice)
    workspace = open_workspace(scene.loaded)
    ends = (
        workspace.tables.partitions.choose_day("total_hit_rate", day) for day in (parsed.first, parsed.last or parsed.first)
    )
    days = days_between(*ends)
    plan = experiment_runs.plan_experiment(scene, parsed.name[0], entered, days)
    print("\n".join(f"experiment {plan.name}, {line}" for line in plan.settings), flush=True)
    with terminal.ProgressTable(dict.fromkeys(plan.names, len(days))) as table:
        experiment_runs.run_experiment(plan, table, choice.instance_home)
    for ds in days:
        _print_comparison(workspace, ds, None)
    return 0


def _adopt(parsed: argparse.Namespace) -> int:
    scene = load_announced_scene(parsed)
    from dssm_assets.extras.experiments.experiment_runs import adopt_experiment

    found = adopt_experiment(scene, parsed.name[1])
    for key, (before, now) in found.changed.items():
        print(f"{key}: {now} (was {before})")
    print(f"Wrote {found.path}. Next, of this and of later days:")
    for asset in found.remade:
        print(f"  dssm-assets materialize {asset} --from {found.day} --with-upstream")
    return 0


def _experiments(parsed: argparse.Namespace) -> int:
    scene = load_announced_scene(parsed)
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(scene.loaded)
    _print_comparison(workspace, workspace.tables.partitions.choose_day("experiments", parsed.day), parsed.k)
    return 0


def _print_comparison(workspace: Workspace, ds: str, k: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from dssm_assets.core.evaluation.labels import SCOPES, display_name
    from dssm_assets.core.names import Scope
    from dssm_assets.extras.experiments.experiments import REGULAR

    rows: list[dict[str, Any]] = workspace.tables.read(workspace.need("experiments", ds)).to_pylist()
    shown_k = max((row["k"] for row in rows if row["experiment"] == REGULAR), default=0) if k is None else k
    for scope in (Scope.ALL, Scope.UNSEEN, Scope.COLD):
        found = [row for row in rows if (row["scope"], row["k"]) == (scope, shown_k)]
        if not found:
            continue
        title = f"{ds}  {SCOPES[scope].title} ({found[0]['users']} users)"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for heading in ("experiment", "list", f"hit_rate@{shown_k}", "gain", "95% interval of the gain"):
            table.add_column(heading, justify="left" if heading in ("experiment", "list") else "right", no_wrap=True)
        for row in sorted(found, key=lambda row: row["scorer"], reverse=True):
            is_compared = row["experiment"] != REGULAR and row["gain"] is not None
            gain = (f"{row['gain']:+.4f}", f"{row['gain_low']:+.4f} to {row['gain_high']:+.4f}") if is_compared else ("", "")
            table.add_row(row["experiment"], display_name(row["scorer"]), f"{row['hit_rate']:.4f}", *gain)
        Console().print(table)
    for name, changed in {row["experiment"]: row["changed"] for row in rows if row["experiment"] != REGULAR}.items():
        print(f"{name}: {changed}")
    print(f"Gains over the {REGULAR} run, on the same users. If an interval contains 0, this day shows no difference.")


def _tune(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault
    from dssm_assets.extras.experiments.experiments import find_name_faults
    from dssm_assets.extras.experiments.tuning import StudyRequest, Trial, best_trial, run_study
    from dssm_assets.steps.workspace import open_workspace

    faults = [*find_name_faults(parsed.study, "--study")]
    if parsed.trials < 1:
        faults.append(Fault("--trials", "at least 1", str(parsed.trials), "give a larger number"))
    ConfigError.raise_if(faults)
    workspace = open_workspace(load_announced_scene(parsed).loaded, functools.partial(print, flush=True))
    day = workspace.tables.partitions.choose_day("dssm_model", parsed.day)

    def show(trials: Sequence[Trial]) -> None:
        trial, best = trials[-1], best_trial(trials)
        rate = "no score" if trial.hit_rate is None else f"{trial.hit_rate:.4f}"
        so_far = "" if best is None else f", best {best.hit_rate:.4f}"
        left = sum(one.seconds for one in trials) / len(trials) * (parsed.trials - len(trials))
        print(
            f"{len(trials)}/{parsed.trials} {trial.name}: {rate}, {trial.state}, {trial.seconds:.0f} s{so_far}, ETA {max(0, left):.0f} s",
            flush=True,
        )

    result = run_study(workspace, StudyRequest(parsed.study, day, parsed.trials, parsed.seed), show)
    print(f"\n{result.table_path.read_text(encoding='utf-8')}")
    first = result.trials[0]
    if first.hit_rate is not None and result.best.hit_rate is not None:
        print(f"Best: {result.best.name}, {result.best.hit_rate:.4f} instead of {first.hit_rate:.4f} as configured.")
    print(f"Wrote {result.config_path} and {result.table_path}.")
    return 0
