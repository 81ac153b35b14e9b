"""What the command line shows: a progress bar, tables of hit rates, how to open the UI.

Belongs here: everything that is printed with rich. Does not belong here: deciding what runs, names of scorers and scopes
(`core/evaluation/labels.py`).
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dssm_assets.closed_pipe import discard_stdout
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, TOTAL_HIT_RATE, is_of_channels
from dssm_assets.core.evaluation.labels import SCOPES, Spans, display_name, scorers_in_order
from dssm_assets.core.evaluation.scopes import Population, Scope, counted_population
from dssm_assets.defs.asset_factory import Observer


class Bar(Observer):
    """A progress bar over asset steps on stderr, with the latest progress line next to it.

    Where stderr is not a terminal, such as a log file, there is no bar: each progress line is printed on stdout.
    """

    def __init__(self, total: int) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)
        self.evaluated: list[str] = []
        """Days whose total_hit_rate was written."""

    def __enter__(self) -> "Bar":
        """Shows the bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the bar."""
        self._progress.stop()

    def on_log(self, text: str) -> None:
        """Shows a progress line next to the bar; without a terminal, prints it. A reader that has left does not end the run."""
        self._progress.update(self._task, description=text)
        if not self.console.is_terminal:
            try:
                print(text, flush=True)
            except BrokenPipeError:
                discard_stdout()

    def on_asset_done(self, name: str, seconds: float) -> None:
        """Advances the bar by one."""
        self._progress.advance(self._task)

    def on_partition(self, name: str, ds: str) -> None:
        """Notes the days that are evaluated."""
        if name == TOTAL_HIT_RATE.name:
            self.evaluated.append(ds)

    def on_skipped(self, ds: str, reason: str) -> None:
        """Prints that there is nothing to do on a day; without a terminal it was printed as a progress line."""
        if self.console.is_terminal:
            self.console.print(f"{ds} is skipped: {reason}", markup=False, highlight=False)


@dataclass(frozen=True)
class DayRates:
    """What is printed of an evaluation day: its rows of total_hit_rate, the cut-offs, and what the gate said.

    Attributes:
        ds: the day.
        rows: of total_hit_rate.
        ks: cut-offs.
        gate: the gate's sentence; None if the partition is older than the sentence.
        last_day: last day whose interactions are the truth.
        spans: days that the baselines count.
    """

    ds: str
    rows: Sequence[dict[str, Any]]
    ks: Sequence[int]
    gate: str | None = None
    last_day: str | None = None
    spans: Spans | None = None

    @property
    def label(self) -> str:
        """Returns the day, or the days whose interactions are the truth."""
        return self.ds if self.last_day in (None, self.ds) else f"{self.ds} to {self.last_day}"


def print_hit_rates(console: Console, day: DayRates, scopes: Iterable[Scope] = SCOPES, *, is_whole: bool = True) -> None:
    """Prints a table per scope for warm users and items, of cold items for all users: hit rates of every scorer, the interval of
    the last, NDCG at the first k.

    Then warm, cold and all pairs of every scope at the largest k, and what the gate said.

    Args:
        console: where to print.
        day: what to print.
        scopes: the scopes to print.
        is_whole: with the table of warm, cold and all.
    """
    ks = day.ks
    for scope in scopes:
        population = counted_population(scope)
        cells = {
            (row["scorer"], row["k"]): row for row in day.rows if row["scope"] == scope and row["population"] == population
        }
        if not cells:
            console.print(f"{day.label}  {SCOPES[scope].title}: {_why_empty(day, scope)}", highlight=False, soft_wrap=True)
            continue
        title = f"{day.label}  {SCOPES[scope].title} ({max(row['users'] for row in cells.values())} users)"
        console.print(title, highlight=False, soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        table.add_column("hit_rate@k")  # the only column that is folded in a narrow terminal
        for heading in (*(f"@{k}" for k in ks), "95%", f"NDCG@{ks[0]}"):
            table.add_column(heading, justify="right", no_wrap=True)
        for scorer in scorers_in_order(name for name, k in cells if k == ks[-1]):
            rates = [f"{cells[scorer, k]['hit_rate']:.3f}" for k in ks]
            low, high = (f"{cells[scorer, ks[-1]][end]:.3f}".removeprefix("0") for end in ("ci_low", "ci_high"))
            style = "bold" if scorer in (MODEL, MERGED) else ""
            table.add_row(
                display_name(scorer, day.spans), *rates, f"{low}-{high}", f"{cells[scorer, ks[0]]['ndcg']:.3f}", style=style
            )
        console.print(table)
    if is_whole:
        console.print(_table_of_populations(day))
    if day.gate is not None:
        console.print(f"{day.label}  Gate: {day.gate}", highlight=False, markup=False, soft_wrap=True)


def _why_empty(day: DayRates, scope: Scope) -> str:
    """Returns why a scope has no rates of known users and items."""
    cold = [row for row in day.rows if row["scope"] == scope and row["population"] == Population.COLD]
    if not cold or scope is Scope.COLD:
        return "no user has such an item to find on this day"
    return f"no known user has a known item to find; {cold[0]['truth_count']:,} items to find are of new users or are new themselves"


def _table_of_populations(day: DayRates) -> Table:
    """Returns a table of known, new and all users and items: the model, the merged list and the best baseline of each scope."""
    k = day.ks[-1]
    title = f"{day.label}  Known (warm), new (cold) and all users and items, hit_rate@{k}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("scope", no_wrap=True)
    for heading in ("pairs", "users", "to find", "model", "merged", "best baseline"):
        is_text = heading == "best baseline"  # the only column that is folded in a narrow terminal
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text)
    for scope in SCOPES:
        for population in (Population.WARM, Population.COLD, Population.ALL):
            cell = {
                row["scorer"]: row for row in day.rows if (row["scope"], row["population"], row["k"]) == (scope, population, k)
            }
            if not cell:
                continue
            counted = next(iter(cell.values()))
            baselines = [name for name in cell if name != MODEL and not is_of_channels(name)]
            best = max(baselines, key=lambda name: (cell[name]["hit_rate"], name), default=None)
            shown = [f"{cell[name]['hit_rate']:.3f}" if name in cell else "-" for name in (MODEL, MERGED)]
            ahead = "-" if best is None else f"{cell[best]['hit_rate']:.3f} {display_name(best, day.spans)}"
            table.add_row(str(scope), str(population), f"{counted['users']:,}", f"{counted['truth_count']:,}", *shown, ahead)
    return table


def print_how_to_open(console: Console, home: Path, workspace_file: Path, days: Sequence[str]) -> None:
    """Prints how to open the UI on this home, and where to look."""
    home_text, file_text = shlex.quote(str(home)), shlex.quote(str(workspace_file))
    hit_rates = f"dssm-assets hit-rates --home {home_text} --day {days[-1]}"
    console.print(f"\nAll scopes of a day: {hit_rates}", soft_wrap=True, highlight=False)
    console.print("\nOpen the UI on these runs:\n", highlight=False)
    console.print(f"  DAGSTER_HOME={home_text} dagster-webserver -w {file_text}", soft_wrap=True, highlight=False)
    console.print(
        f"  DAGSTER_HOME={home_text} dg dev            # in the project's folder: with the daemon, for backfills\n",
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        f"then http://127.0.0.1:3000 -> Assets -> total_hit_rate -> partition {days[-1]}: the report, the chart, "
        "and under Metadata the hit rates plotted by partition.",
        highlight=False,
    )
