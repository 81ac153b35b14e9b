"""`dssm-assets ...`: argument parsing plus one call each."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from dssm_assets.commands import bench, configuration, evaluate, fit, init, recall, rollback, sampler_tables, serve, validate


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status. Errors on bad input are printed without a trace."""
    from dssm_assets.core.errors import DssmError

    parsed = parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module="dagster")
    try:
        return int(parsed.command(parsed))
    except DssmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Returns the parser of every command."""
    top = argparse.ArgumentParser(prog="dssm-assets", description="DSSM two-tower vector recall as Dagster assets.")
    commands = top.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="run everything on a year of real grocery purchases and print the hit rates")
    demo.add_argument("--home", type=Path, default=Path(".dssm"), help="folder for tables, models and runs (default: .dssm)")
    demo.add_argument(
        "--days", type=int, choices=range(1, 6), default=4, help="evaluation days, the last of the year (default: 4)"
    )
    demo.add_argument("--keep-dates", action="store_true", help="leave the dates in 2017 (the UI's charts then stay empty)")
    demo.set_defaults(command=_demo)
    make = commands.add_parser("materialize", help="materialize an asset or a job for a range of days, in this process")
    make.add_argument("name", help="an asset, or the job daily_tables, train_and_evaluate or publish")
    make.add_argument("--from", dest="first", required=True, type=dt.date.fromisoformat, help="first day, YYYY-MM-DD")
    make.add_argument("--to", dest="last", type=dt.date.fromisoformat, help="last day, YYYY-MM-DD (default: the first)")
    make.add_argument("--scene", help="its name, where DSSM_CONFIG names several configurations")
    make.set_defaults(command=_materialize)
    rates = commands.add_parser("hit-rates", help="print the hit rates of an evaluation day")
    rates.add_argument("--day", type=dt.date.fromisoformat, help="YYYY-MM-DD (default: the last evaluated day)")
    rates.add_argument("--scene", help="its name, where DSSM_CONFIG names several configurations")
    rates.set_defaults(command=_hit_rates)
    for command in (init, validate, configuration, fit, evaluate, bench, recall, serve, rollback, sampler_tables):
        command.add(commands)
    return top


def _demo(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from dssm_assets import demo, terminal
    from dssm_assets.steps.workspace import open_workspace

    console = Console()
    home = parsed.home.absolute()
    os.environ["DAGSTER_HOME"] = str(home)
    loaded = demo.prepare_home(home, dt.date.today(), is_shifted=not parsed.keep_dates)
    calendar = loaded.config.calendar
    moved = "" if calendar.start.year == demo.ORIGINAL_YEAR else " (dates moved by whole weeks)"
    console.print(f"A year of grocery purchases, {calendar.start} to {calendar.end}{moved}, in {home}", highlight=False)
    days = demo.evaluation_days(loaded, parsed.days)
    workspace = open_workspace(loaded)
    plan = demo.Plan(workspace, days)
    if plan.steps:
        with terminal.Bar(console, plan.steps) as bar:
            demo.run_demo(loaded, bar, plan)
    else:
        console.print("Everything is materialized already; nothing to run.")
    for ds in days:
        rows = workspace.tables.read(workspace.need("total_hit_rate", ds)).to_pylist()
        terminal.print_hit_rates(console, ds, rows, loaded.config.evaluation.k)
    terminal.print_how_to_open(console, home, Path(__file__).parent.parent / "workspace.yaml", days)
    return 0


def _materialize(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from dssm_assets import materialize, terminal
    from dssm_assets.definitions import configured_scene

    days = (parsed.first.isoformat(), (parsed.last or parsed.first).isoformat())
    work = materialize.plan(configured_scene(parsed.scene), parsed.name, *days)
    with terminal.Bar(Console(), work.steps) as bar:
        materialize.run(work, bar)
    return 0


def _hit_rates(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from dssm_assets import terminal
    from dssm_assets.definitions import configured_scene
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(configured_scene(parsed.scene).loaded)
    evaluated = workspace.tables.partitions.days("total_hit_rate")
    ds = parsed.day.isoformat() if parsed.day else evaluated[-1] if evaluated else dt.date.today().isoformat()
    rows = workspace.tables.read(workspace.need("total_hit_rate", ds)).to_pylist()
    terminal.print_hit_rates(Console(), ds, rows, workspace.config.evaluation.k)
    return 0
