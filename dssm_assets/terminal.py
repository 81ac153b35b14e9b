"""What the command line shows: a progress bar, tables of hit rates, how to open the UI.

Belongs here: everything that is printed with rich. Does not belong here: deciding what runs, names of scorers and scopes
(`core/evaluation/labels.py`).
"""

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL
from dssm_assets.core.evaluation.labels import SCOPES, Spans, display_name, scorers_in_order
from dssm_assets.core.evaluation.scopes import Scope, counted_population
from dssm_assets.defs.asset_factory import Observer


def discard_stdout() -> None:
    """Sends what is printed from now on nowhere, after the reader of stdout has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def print_hit_rates(
    console: Console, ds: str, rows: Sequence[dict[str, Any]], config: PipelineConfig, scopes: Iterable[Scope] = SCOPES
) -> None:
    """Prints a table per scope for warm users and items, of cold items for all users: hit rates of every scorer, the interval of the last, NDCG at the first k."""
    ks, spans = config.evaluation.k, Spans.from_config(config, ds)
    for scope in scopes:
        population = counted_population(scope)
        cells = {(row["scorer"], row["k"]): row for row in rows if row["scope"] == scope and row["population"] == population}
        if not cells:
            continue
        title = f"{ds}  {SCOPES[scope].title} ({max(row['users'] for row in cells.values())} users)"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("hit_rate@k", no_wrap=True)
        for heading in (*(f"@{k}" for k in ks), "95%", f"NDCG@{ks[0]}"):
            table.add_column(heading, justify="right", no_wrap=True)
        for scorer in scorers_in_order(name for name, k in cells if k == ks[-1]):
            rates = [f"{cells[scorer, k]['hit_rate']:.3f}" for k in ks]
            low, high = (f"{cells[scorer, ks[-1]][end]:.3f}".removeprefix("0") for end in ("ci_low", "ci_high"))
            style = "bold" if scorer in (MODEL, MERGED) else ""
            table.add_row(
                display_name(scorer, spans), *rates, f"{low}-{high}", f"{cells[scorer, ks[0]]['ndcg']:.3f}", style=style
            )
        console.print(table)


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
