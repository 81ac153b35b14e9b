"""The command `dssm-assets`: its parser, and the commands demo, materialize and configuration."""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from dssm_assets.core.errors import DssmError

DEMO_PROCESSES = 2
"""How many processes make the demo's runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    Errors caused by input, Ctrl-C, a reader that closes stdout (`| head`) and a disk that is full or cannot be written end it without a
    traceback; the status is then 1, 130, 1 and 1. Nearly everything is imported within, so that Ctrl-C also ends imports so.
    """
    parsed = argparse.Namespace()
    try:
        build_parser().parse_args(arguments, parsed)
        warnings.filterwarnings("ignore", module="dagster")
        status = int(parsed.command(parsed))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except DssmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        from dssm_assets import terminal

        if not terminal.is_reader_gone():
            raise
        terminal.discard_stdout()
        return 1
    except Exception as error:
        from dssm_assets.storage.disk_space import explain_disk_error, list_folders

        explained = explain_disk_error(error, list_folders(vars(parsed)))
        if explained is None:
            raise
        print(f"{type(explained).__name__}: {explained}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    from dssm_assets.commands import fit, hit_rates
    from dssm_assets.commands.config_arguments import add_config_arguments
    from dssm_assets.commands.day_argument import day_argument
    from dssm_assets.core.days import DAY_FORMS
    from dssm_assets.installed_extras import load_all
    from dssm_assets.service.commands import publish, recall, serve

    top = argparse.ArgumentParser(prog="dssm-assets", description="DSSM two-tower vector recall as Dagster assets.")
    top.add_argument("--version", action="version", version=f"dssm-assets {version('dssm-assets')}")
    commands = top.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="run the whole graph on a year of real grocery purchases and print the hit rates")
    demo.add_argument("--home", type=Path, help="folder for tables, models and runs (default: .dssm in the current folder)")
    demo.add_argument(
        "--days", type=int, choices=range(1, 6), default=4, help="number of evaluation days, the last of the year (default: 4)"
    )
    demo.add_argument("--keep-dates", action="store_true", help="keep the dates of 2017 (the UI's charts are empty then)")
    demo.set_defaults(command=_demo)
    materialize = commands.add_parser("materialize", help="materialize an asset or a job over a range of days, in this process")
    materialize.add_argument("name", help="an asset, or one of the jobs daily_tables, train_and_evaluate and publish")
    materialize.add_argument(
        "--from",
        dest="first",
        required=True,
        type=day_argument,
        metavar="DAY",
        help=f"first day, {DAY_FORMS} of the calendar's days that can be made",
    )
    materialize.add_argument("--to", dest="last", type=day_argument, metavar="DAY", help="last day (default: the first day)")
    materialize.add_argument(
        "--processes",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="N",
        help="make up to N runs at the same time: branches and days of the daily tables, evaluation days (default: 1)",
    )
    materialize.add_argument(
        "--with-upstream", action="store_true", help="first make what these days need and is not stored, and nothing else"
    )
    add_config_arguments(materialize)
    materialize.set_defaults(command=_materialize)
    reference = commands.add_parser(
        "configuration", help="print every configuration key with type, default and meaning (Markdown)"
    )
    reference.set_defaults(command=_configuration)
    for command in (hit_rates, fit, recall, serve, publish, *load_all("command")):
        command.add_command(commands)
    return top


def _share_machine(processes: int) -> None:
    """Lets each of several processes use its share of the cores, and keeps the memory of kernels small.

    Called before the libraries that read it are imported. Batches differ in their number of users, so most products of a fit have
    shapes that do not come again: a fit of the demo leaves 400 MB of kernels and their descriptions for them, and is no slower
    without. OpenBLAS's threads spin for some 20 ms after each product, which doubles the CPU time of a search.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # of oneDNN, of its caller in torch
        os.environ.setdefault(name, "32")
    if processes > 1:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // processes)))


def _demo(parsed: argparse.Namespace) -> int:
    _share_machine(DEMO_PROCESSES)
    from rich.console import Console

    from dssm_assets import demo, terminal
    from dssm_assets.commands import hit_rates
    from dssm_assets.materialize import run_plan
    from dssm_assets.steps.workspace import open_workspace
    from dssm_assets.storage.config_choice import CONFIG_FILE, DEFAULT_HOME

    console = Console()
    home = (parsed.home or Path(DEFAULT_HOME)).absolute()
    named_by = "--home" if parsed.home else "default"
    print(f"configuration {home / CONFIG_FILE} (the demo's), home {home} ({named_by})", flush=True)
    os.environ["DAGSTER_HOME"] = str(home)
    loaded = demo.prepare_home(home, dt.date.today(), is_shifted=not parsed.keep_dates)
    calendar = loaded.config.calendar
    shifted = "" if calendar.start.year == demo.ORIGINAL_YEAR else " (dates shifted by whole weeks)"
    console.print(f"A year of grocery purchases, {calendar.start} to {calendar.end}{shifted}, in {home}", highlight=False)
    days = demo.evaluation_days(loaded, parsed.days)
    workspace = open_workspace(loaded)
    plan = demo.plan_demo(loaded, days)
    read_day = functools.partial(hit_rates.read_day, workspace)
    if planned := plan.days_by_asset:
        with terminal.ProgressTable(planned, read_day) as table:
            run_plan(plan, table, home, DEMO_PROCESSES)
    else:
        console.print("Everything is materialized already; nothing to run.")
    terminal.print_summary(console, [read_day(ds) for ds in days])
    terminal.print_next_commands(console, home, days)
    return 0


def _materialize(parsed: argparse.Namespace) -> int:
    _share_machine(parsed.processes)
    from dssm_assets.commands import hit_rates
    from dssm_assets.commands.config_arguments import announce_config

    choice = announce_config(parsed)
    from rich.console import Console

    from dssm_assets import materialize, terminal
    from dssm_assets.definitions import load_scene
    from dssm_assets.steps.workspace import open_workspace

    days = (parsed.first, parsed.last or parsed.first)
    plan = materialize.plan_runs(load_scene(parsed.scene, choice), parsed.name, *days, with_upstream=parsed.with_upstream)
    if parsed.with_upstream:
        print("\n".join(map(str, plan.runs)))
        if plan.outdated:
            remade = ", ".join(f"{name} of {count} day{'s' if count > 1 else ''}" for name, count in plan.outdated.items())
            print(f"Made again, because they were made with other settings: {remade}; and what depends on them.", flush=True)
    table = terminal.ProgressTable(plan.days_by_asset, functools.partial(hit_rates.read_day, open_workspace(plan.scene.loaded)))
    try:
        with table:
            materialize.run_plan(plan, table, choice.instance_home, parsed.processes)
    finally:  # also the days that were evaluated before or after one that failed
        if table.rates:
            terminal.print_summary(Console(), [table.rates[ds] for ds in sorted(table.rates)])
    return 0


def _configuration(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.config.reference import configuration_page

    print(configuration_page(), end="")
    return 0
