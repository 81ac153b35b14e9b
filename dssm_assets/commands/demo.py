"""`dssm-assets demo`: the whole graph on a year of real grocery purchases."""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Final

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.materialize import share_machine
from dssm_assets.storage.config_choice import CONFIG_FILE, DEFAULT_HOME

DEMO_PROCESSES: Final = 2
"""Number of processes that make the demo's runs."""
_FIRST_MODULES: Final = ("dssm_assets.materialize", "dssm_assets.steps.sample")
"""Modules imported once for all processes: runs of daily tables need them. torch is imported by each process that trains."""


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo", group=Group.START, help="run the whole graph on a year of real grocery purchases and print the hit rates"
    )
    parser.add_argument("--home", type=Path, help="folder for tables, models and runs (default: .dssm in the current folder)")
    parser.add_argument(
        "--days", type=int, choices=range(1, 6), default=4, help="number of evaluation days, the last of the year (default: 4)"
    )
    parser.add_argument("--keep-dates", action="store_true", help="keep the dates of 2017 (the UI's charts are empty then)")
    parser.set_defaults(command=_demo)


def _demo(parsed: argparse.Namespace) -> int:
    share_machine(DEMO_PROCESSES)
    home = (parsed.home or Path(DEFAULT_HOME)).absolute()
    os.environ["DAGSTER_HOME"] = str(home)
    # The server that forks the runs' processes imports on one core, while this process imports and plans on the other.
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_FIRST_MODULES])
    forkserver.ensure_running()
    from rich.console import Console

    from dssm_assets import demo, terminal
    from dssm_assets.commands import hit_rates
    from dssm_assets.materialize import describe_rest, run_plan
    from dssm_assets.steps.workspace import open_workspace

    console = Console()
    named_by = "--home" if parsed.home else "default"
    print(f"configuration {home / CONFIG_FILE} (the demo's), home {home} ({named_by})", flush=True)
    loaded = demo.prepare_home(home, dt.date.today(), is_shifted=not parsed.keep_dates)
    calendar = loaded.config.calendar
    shifted = "" if calendar.start.year == demo.ORIGINAL_YEAR else " (dates shifted by whole weeks)"
    console.print(f"A year of grocery purchases, {calendar.start} to {calendar.end}{shifted}, in {home}", highlight=False)
    days = demo.evaluation_days(loaded, parsed.days)
    workspace = open_workspace(loaded)
    plan = demo.plan_demo(loaded, days)
    read_day = functools.partial(hit_rates.read_day, workspace)
    if planned := plan.days_by_asset:
        try:
            with terminal.ProgressTable(planned, read_day) as table:
                run_plan(plan, table, home, DEMO_PROCESSES)
        except KeyboardInterrupt:
            print(describe_rest(plan, table.made, is_remaking=False), file=sys.stderr)
            raise
    else:
        console.print("Everything is materialized already; nothing to run.")
    hit_rates.print_day(workspace, days[-1])
    terminal.print_next_commands(console, home, days)
    return 0
