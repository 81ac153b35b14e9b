"""`dssm-assets experiment` and `experiments`: other settings tried next to the regular run, compared, and adopted."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import TYPE_CHECKING, Any

from dssm_assets.commands.config_arguments import add_config_arguments, announce_config, load_announced_scene

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace

_EPILOG = (
    "Only what the settings reach is made, in experiments/NAME of the storage; all other tables are those of the regular run, which "
    "the day must have. Keys: any of the sections model, training, statistics, negative_items and channels, and evaluation.k; "
    "values are YAML. A known experiment keeps its settings unless --set changes them."
)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("experiment", help="run a day with other settings next to the regular run", epilog=_EPILOG)
    name_help = "name of the experiment; `adopt NAME` writes its settings into the configuration"
    parser.add_argument("name", nargs="+", metavar="NAME", help=name_help)
    setting = {"dest": "settings", "metavar": "KEY=VALUE", "help": "a setting, repeatable: model.prior=true"}
    parser.add_argument("--set", action="append", default=[], **setting)
    parser.add_argument("--from", dest="first", type=dt.date.fromisoformat, help="first evaluation day, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", type=dt.date.fromisoformat, help="last evaluation day (default: the first)")
    add_config_arguments(parser)
    parser.set_defaults(command=_experiment)
    listed = commands.add_parser("experiments", help="compare the experiments of a day with the regular run")
    listed.add_argument("--day", type=dt.date.fromisoformat, help="YYYY-MM-DD (default: the last day that has any)")
    listed.add_argument("-k", type=int, help="length of the lists (default: the longest)")
    add_config_arguments(listed)
    listed.set_defaults(command=_experiments)


def _experiment(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault

    is_adopted = parsed.name[0] == "adopt" and len(parsed.name) == 2
    if not is_adopted and len(parsed.name) > 1:
        got = " ".join(parsed.name)
        raise ConfigError(Fault("experiment", "one name, or adopt and a name", repr(got), "give one name"))
    if is_adopted and (parsed.settings or parsed.first or parsed.last):
        raise ConfigError(Fault("experiment adopt", "a name alone", "--set, --from or --to", "leave them out"))
    if not is_adopted and parsed.first is None:
        raise ConfigError(Fault("experiment", "--from, the evaluation day", "none", "add --from YYYY-MM-DD"))
    return _adopt(parsed) if is_adopted else _run(parsed)


def _run(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.experiments.settings import parse_assignments

    entered = parse_assignments(parsed.settings)
    choice = announce_config(parsed)
    from dssm_assets import terminal
    from dssm_assets.definitions import load_scene
    from dssm_assets.extras.experiments import experiment_runs
    from dssm_assets.steps.workspace import days_between, open_workspace

    scene = load_scene(parsed.scene, choice)
    days = days_between(parsed.first.isoformat(), (parsed.last or parsed.first).isoformat())
    plan = experiment_runs.plan_experiment(scene, parsed.name[0], entered, days)
    print("\n".join(f"experiment {plan.name}, {line}" for line in plan.settings), flush=True)
    with terminal.ProgressTable(dict.fromkeys(plan.names, len(days))) as table:
        experiment_runs.run_experiment(plan, table, choice.instance_home)
    workspace = open_workspace(scene.loaded)
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
    from dssm_assets.core.errors import ConfigError, Fault
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(scene.loaded)
    days = workspace.tables.partitions.days("experiments")
    if parsed.day is None and not days:
        remedy = "run dssm-assets experiment NAME --set key=value --from DAY"
        raise ConfigError(Fault("experiments", "a day that has any", "none", remedy))
    ds = parsed.day.isoformat() if parsed.day else days[-1]
    _print_comparison(workspace, ds, parsed.k)
    return 0


def _print_comparison(workspace: Workspace, ds: str, k: int | None) -> None:
    """Prints a table per scope at one k: hit rates of towers and merged list, and gains over the regular run; then the settings."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from dssm_assets.core.evaluation.labels import HEADLINE_SCOPES, SCOPES, display_name
    from dssm_assets.extras.experiments.settings import REGULAR

    rows: list[dict[str, Any]] = workspace.tables.read(workspace.need("experiments", ds)).to_pylist()
    shown_k = max((row["k"] for row in rows if row["experiment"] == REGULAR), default=0) if k is None else k
    for scope in HEADLINE_SCOPES:
        found = [row for row in rows if (row["scope"], row["k"]) == (scope, shown_k)]
        if not found:
            continue
        title = f"{ds}  {SCOPES[scope].title} ({found[0]['users']} users)"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for heading in ("experiment", "list", f"hit_rate@{shown_k}", "gain", "95% of the gain"):
            table.add_column(heading, justify="left" if heading in ("experiment", "list") else "right", no_wrap=True)
        for row in sorted(found, key=lambda row: row["scorer"], reverse=True):
            is_compared = row["experiment"] != REGULAR and row["gain"] is not None
            gain = (f"{row['gain']:+.4f}", f"{row['gain_low']:+.4f} to {row['gain_high']:+.4f}") if is_compared else ("", "")
            table.add_row(row["experiment"], display_name(row["scorer"]), f"{row['hit_rate']:.4f}", *gain)
        Console().print(table)
    for name, changed in {row["experiment"]: row["changed"] for row in rows if row["experiment"] != REGULAR}.items():
        print(f"{name}: {changed}")
    print(f"Gains over the {REGULAR} run, on the same users. An interval that holds 0 tells no difference on this day.")
