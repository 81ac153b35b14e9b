"""What the command line shows: a table of progress, tables of hit rates, the next commands.

Belongs here: everything that is printed with rich. Does not belong here: deciding what runs, names of scorers and scopes
(`core/evaluation/labels.py`).
"""

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dssm_assets.closed_pipe import discard_stdout
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, TOTAL_HIT_RATE, is_of_channels
from dssm_assets.core.evaluation.labels import SCOPES, Spans, display_name, scorers_in_order
from dssm_assets.core.evaluation.scopes import Population, Scope, counted_population
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.storage.config_choice import UI_COMMAND

_PACE_DAYS: Final = 4
"""Days of an asset after which its pace is known: two processes make two days at once, and the first has what is done once."""
_SHOWN_ASSETS: Final = 6
"""Rows of the progress table: a terminal of 24 lines also holds the hit rates below it."""


@dataclass
class _Work:
    """An asset in the progress table: days done of all planned, the seconds that they took, when the first and the last were done."""

    total: int
    done: int = 0
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def estimate_seconds_left(self) -> float | None:
        """Returns the seconds until all days are done, at the pace since the first; None before a tenth of the days is done."""
        if self.done == self.total or self.done < max(_PACE_DAYS, self.total / 10):
            return None
        return (self.total - self.done) * (self.last - self.first) / (self.done - 1)


class ProgressTable(Observer):
    """A live table on stderr of the assets at work: days, rate, time left; below it the hit rates of the days evaluated so far.

    Where stderr is not a terminal, such as a log file, there is no table: each progress line, and a line of hit rates per
    evaluated day, is printed on stdout.
    """

    def __init__(
        self,
        days_by_asset: Mapping[str, int],
        read_day: "Callable[[str], DayRates] | None" = None,
        console: Console | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Shows nothing yet.

        Args:
            days_by_asset: assets in their order, and on how many days each is made.
            read_day: reads the hit rates of a day that was evaluated; None: they are not shown.
            console: where the table is shown; None: on stderr.
            now: seconds of a clock that never goes back.
        """
        self.console = console or Console(stderr=True)
        self.evaluated: list[str] = []
        """Days whose total_hit_rate was written."""
        self._work = {name: _Work(days) for name, days in days_by_asset.items()}
        self._read_day, self.now = read_day, now
        self._rates: dict[str, DayRates] = {}
        self._recent: list[str] = []
        self._line = ""
        self._begin = now()
        self._own = _WorkerProgress(self)
        self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "ProgressTable":
        self._begin = self.now()
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_log(self, text: str) -> None:
        """Shows a progress line below the table; without a terminal, prints it. A reader that has left does not end the run."""
        self._line = text
        if not self.console.is_terminal:
            _print_line(text)

    def on_partition(self, name: str, ds: str) -> None:
        """Counts a day of an asset that this process has made."""
        self._own.on_partition(name, ds)

    def on_asset_done(self, name: str, seconds: float) -> None:
        """Begins to count the time of the next asset of this process."""
        self._own.on_asset_done(name, seconds)

    def for_worker(self) -> "_WorkerProgress":
        """Returns what follows one process, and measures its days."""
        return _WorkerProgress(self)

    def count(self, name: str, ds: str, seconds: float) -> None:
        """Counts a day of an asset; shows the hit rates of a day that is evaluated."""
        work = self._work.setdefault(name, _Work(1))
        work.done, work.seconds, work.last = work.done + 1, work.seconds + seconds, self.now()
        if work.done == 1:
            work.first = work.last
        self._recent = [*(one for one in self._recent if one != name), name][-_SHOWN_ASSETS:]
        if name != TOTAL_HIT_RATE.name:
            return
        is_new = ds not in self.evaluated
        if is_new:
            self.evaluated.append(ds)
        if self._read_day is not None:
            self._rates[ds] = self._read_day(ds)
            if is_new and not self.console.is_terminal:
                _print_line(describe_rates(self._rates[ds]))

    def on_skipped(self, ds: str, reason: str) -> None:
        """Prints that there is nothing to do on a day; without a terminal it was printed as a progress line."""
        if self.console.is_terminal:
            self.console.print(f"{ds} is skipped: {reason}", markup=False, highlight=False)

    def render(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("asset", min_width=22, no_wrap=True)
        for heading in ("days", "rate", "ETA"):
            table.add_column(heading, justify="right", min_width=10, no_wrap=True)
        for name in self._recent:
            work = self._work[name]
            rate = work.done / max(work.seconds, 1e-9)
            shown = f"{rate:,.0f} days/s" if rate >= 10 else f"{rate:.1f} days/s" if rate >= 1 else f"{1 / rate:.1f} s/day"
            left = work.estimate_seconds_left()
            eta = "" if left is None else f"{left:.0f} s"
            table.add_row(name, f"{work.done}/{work.total}", shown, eta, style="bold" if name == self._recent[-1] else "")
        done, total = (sum(getattr(one, name) for one in self._work.values()) for name in ("done", "total"))
        minutes, seconds = divmod(round(self.now() - self._begin), 60)
        line = Text(self._line, style="dim", no_wrap=True, overflow="ellipsis")
        head = Text(f"{minutes}:{seconds:02}  {done:,} of {total:,} partitions")
        return Group(head, table, line, *([summary([self._rates[ds] for ds in sorted(self._rates)])] if self._rates else []))


class _WorkerProgress(Observer):
    """One of the processes that a progress table follows."""

    def __init__(self, table: ProgressTable) -> None:
        self._table, self._since = table, table.now()

    def on_log(self, text: str) -> None:
        self._table.on_log(text)

    def on_partition(self, name: str, ds: str) -> None:
        """Counts a day of an asset, with the time since the one before it."""
        now = self._table.now()
        self._table.count(name, ds, now - self._since)
        self._since = now

    def on_asset_done(self, name: str, seconds: float) -> None:
        """Begins to count the time of the next asset."""
        self._since = self._table.now()

    def on_skipped(self, ds: str, reason: str) -> None:
        self._table.on_skipped(ds, reason)


def _print_line(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


@dataclass(frozen=True)
class DayRates:
    """What is printed of an evaluation day: its rows of total_hit_rate, the cut-offs, and what the gate said.

    Attributes:
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


def summary(days: Sequence[DayRates]) -> RenderableType:
    """Returns one table: model and baselines of the last of some days, unseen items, and the earlier days as the trend.

    Args:
        days: at least one, in their order.
    """
    day = days[-1]
    k, ks = day.ks[-1], day.ks if len(day.ks) <= _SUMMARY_KS else (*day.ks[: _SUMMARY_KS - 1], day.ks[-1])
    earlier = days[-1 - _TREND_DAYS : -1]
    cells = [_rates_of(one) for one in (day, *earlier)]
    users = max((row["users"] for (_, scope, _), row in cells[0].items() if scope == Scope.ALL), default=0)
    title = Text(f"hit_rate@k on {day.label}, {users:,} known users")
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("")  # the only column that is folded in a narrow terminal
    trend = (f"@{k}\n{one.ds[5:]}" for one in earlier)
    for heading in (*(f"\n@{cut}" for cut in ks), f"@{k}\n95%", f"unseen\n@{k}", *trend):
        table.add_column(heading, justify="right", no_wrap=True)
    scorers = scorers_in_order((name for name, scope, cut in cells[0] if (scope, cut) == (Scope.ALL, k)), day.spans)
    headline = next((name for name in (MERGED, MODEL) if name in scorers), None)
    for name in sorted(scorers, key=lambda one: one != headline):
        row = cells[0][name, Scope.ALL, k]
        table.add_row(
            display_name(name, day.spans),
            *(_rate(cells[0], name, Scope.ALL, cut) for cut in ks),
            _interval(row) if name == headline else "",
            _rate(cells[0], name, Scope.UNSEEN, k),
            *(_rate(of_day, name, Scope.ALL, k) for of_day in cells[1:]),
            style="bold" if name in (MODEL, MERGED) else "",
        )
    window = "window" if day.spans is None else f"{day.spans.window} days before"
    notes = f"{_KNOWN.format(window)}\n{_UNSEEN}"
    return Group(title, *([Text(_SERVED)] if headline == MERGED else []), table, Text(notes, style="dim"))


_SERVED: Final = (
    "The merged list is served. In it the two-tower model finds what is new to a user (unseen), and own history what users come "
    "back for."
)
_KNOWN: Final = "known (warm): users and items with positive events in the {}"
_UNSEEN: Final = "unseen: items that a user never interacted with, own history left out"

_SUMMARY_KS: Final = 3
"""Cut-offs in the summary: the first ones and the largest."""
_TREND_DAYS: Final = 3
"""Earlier days in the summary: with them it fits 80 columns."""


def describe_rates(day: DayRates) -> str:
    """Returns the headline of a day in one line: merged list, model and the best baseline, on all items and on unseen ones."""
    cells, k = _rates_of(day), day.ks[-1]
    parts = []
    for scope, words in ((Scope.ALL, f"hit_rate@{k}"), (Scope.UNSEEN, "unseen")):
        rates = {name: row["hit_rate"] for (name, of, cut), row in cells.items() if (of, cut) == (scope, k)}
        baselines = [name for name in rates if name != MODEL and not is_of_channels(name)]
        best = max(baselines, key=lambda name: (rates[name], name), default=None)
        shown = [name for name in (MERGED, MODEL, best) if name in rates]
        parts.append(f"{words}: " + "; ".join(f"{display_name(name, day.spans)} {rates[name]:.3f}" for name in shown))
    return f"{day.label}  {'  '.join(parts)}"


def print_summary(console: Console, days: Sequence[DayRates]) -> None:
    """Prints the summary of some days, and what the gate said of the last one if it did not pass."""
    console.print(summary(days))
    gate = days[-1].gate
    if gate is not None and not gate.startswith("passed"):
        console.print(f"{days[-1].label}  Gate: {gate}", highlight=False, markup=False, soft_wrap=True)


_Cells: TypeAlias = dict[tuple[str, str, int], dict[str, Any]]
"""(scorer, scope, k) -> its row of total_hit_rate, for warm users and items."""


def _rates_of(day: DayRates) -> _Cells:
    return {(row["scorer"], row["scope"], row["k"]): row for row in day.rows if row["population"] == Population.WARM}


def _rate(cells: _Cells, scorer: str, scope: Scope, k: int) -> str:
    row = cells.get((scorer, scope, k))
    return "-" if row is None else f"{row['hit_rate']:.3f}".removeprefix("0")


def _interval(row: Mapping[str, Any]) -> str:
    low, high = (f"{row[end]:.3f}".removeprefix("0") for end in ("ci_low", "ci_high"))
    return f"{low}-{high}"


def print_hit_rates(console: Console, day: DayRates, scopes: Iterable[Scope] = SCOPES) -> None:
    """Prints a table per scope for warm users and items, of cold items for all users: hit rates of every scorer, the interval of
    the last, NDCG at the first k.

    Then warm, cold and all pairs of every scope at the largest k, and what the gate said.
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
        for scorer in scorers_in_order((name for name, k in cells if k == ks[-1]), day.spans):
            rates = [f"{cells[scorer, k]['hit_rate']:.3f}" for k in ks]
            style = "bold" if scorer in (MODEL, MERGED) else ""
            interval, ndcg = _interval(cells[scorer, ks[-1]]), f"{cells[scorer, ks[0]]['ndcg']:.3f}"
            table.add_row(display_name(scorer, day.spans), *rates, interval, ndcg, style=style)
        console.print(table)
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


def print_next_commands(console: Console, home: Path, days: Sequence[str]) -> None:
    """Prints the commands that show what a home holds, ready to be pasted in any folder, and where to look in the UI."""
    folder = shlex.quote(str(home))
    commands = [
        f"dssm-assets hit-rates {days[-1]} --all --home {folder}  # every scope, interval and baseline",
        f"DAGSTER_HOME={folder} {UI_COMMAND}  # the UI: http://127.0.0.1:3000",
        f"dssm-assets recall --home {folder} --user-id 1 -k 20  # a list for a user",
        f"dssm-assets serve --home {folder} --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
    ]
    where = (
        f"In the UI: Catalog > total_hit_rate > Partitions > {days[-1]} has the hit rate and the report, "
        "Overview > Metadata > Plots the main figures over the days."
    )
    lines = ["", "Next:", *(f"  {command}" for command in commands), "", where]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
