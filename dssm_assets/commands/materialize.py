"""`dssm-assets materialize`: makes an asset or a job over a range of days, in this process or in several."""

from __future__ import annotations

import argparse
import functools
import os
import sys

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config
from dssm_assets.commands.day_argument import day_argument
from dssm_assets.core.days import DAY_FORMS


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "materialize", group=Group.RUN, help="materialize an asset or a job over a range of days, in this process"
    )
    parser.add_argument("name", help="an asset, or one of the jobs daily_tables, train_and_evaluate and publish")
    parser.add_argument(
        "--from",
        dest="first",
        required=True,
        type=day_argument,
        metavar="DAY",
        help=f"first day, {DAY_FORMS} of the calendar's days that can be made",
    )
    parser.add_argument("--to", dest="last", type=day_argument, metavar="DAY", help="last day (default: the first day)")
    parser.add_argument(
        "--processes",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="N",
        help="make up to N runs at the same time: branches and days of the daily tables, evaluation days (default: 1)",
    )
    parser.add_argument("--with-upstream", action="store_true", help="first make the missing inputs of these days")
    add_config_arguments(parser)
    parser.set_defaults(command=_materialize)


def share_machine(processes: int) -> None:
    """Limits each of several processes to its share of the cores, and keeps the memory of compiled kernels small.

    Must run before the libraries that read these settings are imported. Batches differ in size, so most matrix products of a
    fit have a shape that never comes again: caching their kernels would take 400 MB in the demo and save no time. OpenBLAS's
    threads would spin for some 20 ms after each product, and so double the CPU time of a search.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # one of oneDNN, one of its caller in torch
        os.environ.setdefault(name, "32")
    if processes > 1:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // processes)))


def _materialize(parsed: argparse.Namespace) -> int:
    share_machine(parsed.processes)
    from dssm_assets.commands import hit_rates

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
            print(f"Made again, with all that depends on them, because settings have changed: {remade}.", flush=True)
    workspace = open_workspace(plan.scene.loaded)
    table = terminal.ProgressTable(plan.days_by_asset, functools.partial(hit_rates.read_day, workspace))
    try:
        with table:
            materialize.run_plan(plan, table, choice.instance_home, parsed.processes)
    except BaseException as error:  # shows the days evaluated before and after the failed day; they are in memory
        if table.rates:
            terminal.print_summary(Console(), [table.rates[ds] for ds in sorted(table.rates)])
        table.print_checks()
        if isinstance(error, KeyboardInterrupt):
            print(materialize.describe_rest(plan, table.made), file=sys.stderr)
        raise
    if table.rates:
        hit_rates.print_day(workspace, max(table.rates))
    table.print_checks()
    return 0
