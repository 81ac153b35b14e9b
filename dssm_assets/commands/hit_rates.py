"""`dssm-assets hit-rates`. `demo` and `materialize` read the hit rates that they print from here, too."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene
from dssm_assets.commands.day_argument import day_argument
from dssm_assets.core.days import DAY_FORMS, LATEST, is_date

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace
    from dssm_assets.terminal import DayRates


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "hit-rates",
        group=Group.LOOK,
        help="print the hit rates of an evaluation day",
        epilog="Prints one table: model and baselines, unseen items, and the days before as the trend. With --all: a table per scope "
        "for known users and items, a table for known, other and all users, and the gate's verdict.",
    )
    parser.add_argument(
        "day", nargs="?", default=LATEST, type=day_argument, help=f"{DAY_FORMS} of the evaluated days (default: latest)"
    )
    parser.add_argument("--all", dest="is_whole", action="store_true", help="every scope, interval and baseline")
    add_config_arguments(parser)
    parser.set_defaults(command=_hit_rates)


def _hit_rates(parsed: argparse.Namespace) -> int:
    scene = load_announced_scene(parsed)
    from rich.console import Console

    from dssm_assets import terminal
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(scene.loaded)
    ds = choose_evaluated_day(workspace, parsed.day)
    if parsed.is_whole:
        terminal.print_hit_rates(Console(), read_day(workspace, ds))
    else:
        print_day(workspace, ds)
    return 0


def print_day(workspace: Workspace, ds: str) -> None:
    """Prints the table of an evaluated day, with earlier stored days as the trend."""
    from rich.console import Console

    from dssm_assets import terminal

    days = [day for day in workspace.tables.partitions.days("total_hit_rate") if day <= ds]
    terminal.print_summary(Console(), [read_day(workspace, day) for day in days[-4:]])


def choose_evaluated_day(workspace: Workspace, wanted: str) -> str:
    """Returns the day to print. For a day without rates, the error says why, or which command makes them."""
    from dssm_assets.core.errors import Fault, PartitionMissingError, remedy_of_missing
    from dssm_assets.defs.scene import today_in
    from dssm_assets.steps.workspace import reason_to_skip, truth_days

    if not is_date(wanted):
        return workspace.tables.partitions.choose_day("total_hit_rate", wanted)
    evaluated = workspace.tables.partitions.days("total_hit_rate")
    if wanted in evaluated:
        return wanted
    config = workspace.config
    reason, end = reason_to_skip(workspace, wanted), truth_days(wanted, config.evaluation.span_days)[-1]
    if end >= today_in(config.calendar.timezone).isoformat():
        reason = f"its truth ends on {end}, a day that has not ended"
    got = "no partition" if reason is None else f"no partition: {reason}"
    remedy = remedy_of_missing("train_and_evaluate", wanted) if reason is None else "choose another day"
    remedy += f"; evaluated are {evaluated[0]} to {evaluated[-1]}" if evaluated else ""
    raise PartitionMissingError(Fault(f"table total_hit_rate, day {wanted}", "an evaluated day", got, remedy))


def read_day(workspace: Workspace, ds: str) -> DayRates:
    """Returns an evaluated day's rates for printing."""
    from dssm_assets.core.evaluation.labels import Spans
    from dssm_assets.steps.scoring import recent_border
    from dssm_assets.steps.workspace import truth_days
    from dssm_assets.terminal import DayRates

    manifest = workspace.need("total_hit_rate", ds)
    stated: Any = manifest.facts["gate"]
    config = workspace.config
    last_day = truth_days(ds, config.evaluation.span_days)[-1]
    total = workspace.tables.read(manifest)
    recent_hours: Any = manifest.facts.get("recent_hours")
    spans = Spans.from_config(config, ds, recent_hours)
    fitted = workspace.find("dssm_model", ds)
    report: Any = {} if fitted is None else fitted.facts.get("report", {})
    borders = [*report.get("search_borders", []), recent_border(workspace, recent_hours)]
    return DayRates(ds, total, stated["sentence"], last_day, spans, tuple(filter(None, borders)))
