"""Output of the command line: a table of progress, tables of hit rates, the next commands."""

import os
import select
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.evaluation_tables import CHANNEL, MERGED, MODEL, TOTAL_HIT_RATE
from dssm_assets.core.evaluation.labels import Spans, display_name, scorers_in_order
from dssm_assets.core.names import Population, Scope
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.storage.config_choice import UI_COMMAND

if TYPE_CHECKING:
    import pyarrow as pa

    from dssm_assets.core.evaluation.rates import Rows

_EVALUATED: Final = frozenset({TOTAL_HIT_RATE.name, "serving_bundle"})
"""When a day of these assets is made, the last lines show its hit rates and verdict."""
_SHOWN_ASSETS: Final = 6
"""Rows of the progress table. A terminal of 24 lines then has room for the hit rates below it."""
_SUMMARY_KS: Final = 3
"""Number of cut-offs in the summary: the first ones and the largest."""
_TREND_DAYS: Final = 3
"""Number of earlier days in the summary, so that it fits 80 columns."""
_READING: Final = (
    "Users get the merged list: the best proposals of all channels.",
    "The two-tower model is there for items that are new to a user (unseen).",
    "Items that users take again come from the channel own history.",
)
_NOTES: Final = (
    "interval: of @{k}; dates: @{k} of the days before",
    "unseen: @{k} of items that a user never interacted with, own history left out",
    "known (warm): users and items with positive events in the {window}",
)


class _PaceColumn(ProgressColumn):
    """An asset's days per second, or seconds per day. Shown from its second day on, since the first day includes one-time work."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f} days/s" if speed >= 1 else f"{1 / speed:.1f} s/day")


class ProgressTable(Observer):
    """A live table on stderr: days, rate and time left of each running asset, and the hit rates so far.

    If stderr is no terminal, it prints progress lines and a line of hit rates per evaluated day on stdout instead.
    """

    def __init__(
        self,
        days_by_asset: Mapping[str, int],
        read_day: "Callable[[str], DayRates] | None" = None,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the table without showing it.

        Args:
            days_by_asset: asset -> number of days to make, in order.
            read_day: reads the hit rates of an evaluated day. None: hit rates are not shown.
        """
        self.console = console or Console(stderr=True)
        self.rates: dict[str, DayRates] = {}
        """Hit rates of the days for which rates or a bundle were written."""
        self.made: set[tuple[str, str]] = set()
        """Asset and day of the partitions that were written."""
        self._checks: list[tuple[str, str | None]] = []
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), _PaceColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.console, get_time=now)
        self._total = self._progress.add_task("all", total=sum(days_by_asset.values()))
        self._tasks = {name: self._progress.add_task(name, total=days) for name, days in days_by_asset.items()}
        self._read_day = read_day
        self._recent: list[str] = []
        self._skipped: set[str] = set()
        self._line = ""
        self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "ProgressTable":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_log(self, text: str) -> None:
        """Shows a progress line below the table; without a terminal, prints it. The run goes on even if nobody reads the output."""
        self._line = text
        if not self.console.is_terminal:
            _print_line(text)

    def on_partition(self, name: str, ds: str) -> None:
        self.made.add((name, ds))
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1)
        self._progress.advance(self._tasks[name])
        self._progress.advance(self._total)
        self._recent = [*(one for one in self._recent if one != name), name][-_SHOWN_ASSETS:]
        if name in _EVALUATED and self._read_day is not None:
            is_new = ds not in self.rates
            self.rates[ds] = self._read_day(ds)
            if is_new and not self.console.is_terminal:
                _print_line(describe_rates(self.rates[ds]))

    def on_skipped(self, ds: str, reason: str) -> None:
        """Prints once that a day has nothing to evaluate."""
        if ds in self._skipped:
            return
        self._skipped.add(ds)
        text = f"{ds} is skipped: {reason}"
        if self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)
        else:
            _print_line(text)

    def on_check(self, name: str, fault: str | None) -> None:
        self._checks.append((name, fault))

    def print_checks(self) -> None:
        """Prints how many checks passed, and the sentences of failed checks. Prints nothing if there were no checks."""
        failed = sorted(f"{name}: {fault}" for name, fault in self._checks if fault is not None)
        if self._checks:
            _print_line(f"checks passed: {len(self._checks) - len(failed)}; failed: {'; '.join(failed) or 'none'}")

    def render(self) -> RenderableType:
        tasks = {task.id: task for task in self._progress.tasks}
        total = tasks[self._total]
        minutes, seconds = divmod(round(total.elapsed or 0), 60)
        head = Text(f"{minutes}:{seconds:02}  {total.completed:,.0f} of {total.total:,.0f} partitions")
        table = self._progress.make_tasks_table([tasks[self._tasks[name]] for name in self._recent])
        line = Text(self._line, style="dim", no_wrap=True, overflow="ellipsis")
        return Group(head, table, line, *([summary([self.rates[ds] for ds in sorted(self.rates)])] if self.rates else []))


def _print_line(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def is_reader_gone() -> bool:
    """Returns whether the reader of stdout has closed it, as in `dssm-assets hit-rates | head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(found & select.POLLERR for _, found in poll.poll(0))


def discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class DayRates:
    """The figures of an evaluation day for printing.

    Attributes:
        gate: the gate's sentence.
        last_day: last day of the truth.
        spans: how far back the baselines read.
        borders: remarks on settings with their best value at an end of the tried values.
    """

    ds: str
    total: "pa.Table"
    gate: str = ""
    last_day: str | None = None
    spans: Spans | None = None
    borders: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.ds if self.last_day in (None, self.ds) else f"{self.ds} to {self.last_day}"

    @property
    def ks(self) -> list[int]:
        return sorted({int(k) for k in self.total.column("k").to_pylist()})

    def rows(self, scope: Scope, k: int, population: Population = Population.WARM) -> "Rows":
        from dssm_assets.core.evaluation.rates import rows_of_cell

        return rows_of_cell(self.total, scope, k, population)


def summary(days: Sequence[DayRates]) -> RenderableType:
    """Returns each scorer's rates on the last day as a table, with a column for unseen items, and earlier days as the trend."""
    day, earlier = days[-1], days[-1 - _TREND_DAYS : -1]
    k = day.ks[-1]
    ks = day.ks if len(day.ks) <= _SUMMARY_KS else [*day.ks[: _SUMMARY_KS - 1], k]
    rows = {cut: day.rows(Scope.ALL, cut) for cut in ks}
    of_k, past = rows[k], {one.ds[5:]: one.rows(Scope.ALL, k) for one in earlier}
    users = max((row["users"] for row in of_k.values()), default=0)
    headline = next((name for name in (MERGED, MODEL) if name in of_k), None)
    window = "window" if day.spans is None else f"{day.spans.window} days before"
    everyone = _describe_cell(day, Scope.ALL, Population.ALL)
    has_own_history = f"{CHANNEL}{ChannelName.OWN_HISTORY}" in of_k
    return Group(
        f"hit_rate@k on {day.label}, {users:,} known users",
        *(_READING if has_own_history else _READING[:1] if headline == MERGED else ()),
        rates_table(rows, {"unseen": day.rows(Scope.UNSEEN, k), **past}, headline, day.spans),
        *([f"all users and items of the day @{k}: {everyone}"] if everyone else []),
        Text("\n".join(_NOTES).format(k=k, window=window), style="dim"),
    )


def rates_table(rows: Mapping[int, "Rows"], more: Mapping[str, "Rows"], headline: str | None, spans: Spans | None) -> Table:
    """Returns a row per scorer, the headline first: hit rates by cut-off, the headline's interval at the last cut-off, other columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("")  # in a narrow terminal only this column is folded
    for heading in (*(f"@{cut}" for cut in rows), "95% interval", *more):
        table.add_column(heading, justify="right", no_wrap=True)
    of_k = list(rows.values())[-1]
    for name in sorted(scorers_in_order(of_k), key=lambda one: one != headline):
        interval = f"{_three_digits(of_k[name]['ci_low'])}-{_three_digits(of_k[name]['ci_high'])}"
        table.add_row(
            display_name(name, spans),
            *(_show_rate(of_cut, name) for of_cut in rows.values()),
            interval if name == headline else "",
            *(_show_rate(of_cell, name) for of_cell in more.values()),
            style="bold" if name in (MODEL, MERGED, headline) else "",
        )
    return table


def _show_rate(rows: "Rows", scorer: str) -> str:
    return _three_digits(rows[scorer]["hit_rate"]) if scorer in rows else "-"


def _three_digits(rate: float) -> str:
    return f"{rate:.3f}".removeprefix("0")


def describe_rates(day: DayRates) -> str:
    """Returns a day's headline: the rates of merged list, model and best baseline, on all items and on unseen items."""
    shown = _describe_cell(day, Scope.ALL, Population.WARM), _describe_cell(day, Scope.UNSEEN, Population.WARM)
    return f"{day.label}  hit_rate@{day.ks[-1]}: {shown[0]}  unseen: {shown[1]}"


def _describe_cell(day: DayRates, scope: Scope, population: Population) -> str:
    """Returns the rates of merged list, model and best baseline in a scope and population. "" if no user counts there."""
    from dssm_assets.core.evaluation.rates import best_baseline

    rows = day.rows(scope, day.ks[-1], population)
    shown = [name for name in (MERGED, MODEL, best_baseline(rows)) if name is not None and name in rows]
    return "; ".join(f"{display_name(name, day.spans)} {rows[name]['hit_rate']:.3f}" for name in shown)


def print_summary(console: Console, days: Sequence[DayRates]) -> None:
    console.print(summary(days))
    if not days[-1].gate.startswith("passed"):
        _print_gate(console, days[-1])


def print_hit_rates(console: Console, day: DayRates) -> None:
    """Prints the report's table of every scope, for known users and for all users, and the gate's verdict."""
    from dssm_assets.core.evaluation.report import rates_report

    console.print(Markdown(rates_report(day.label, day.total, day.spans)))
    for border in day.borders:
        console.print(f"{day.label}  {border}", highlight=False, markup=False, soft_wrap=True)
    _print_gate(console, day)


def _print_gate(console: Console, day: DayRates) -> None:
    console.print(f"{day.label}  Gate: {day.gate}", highlight=False, markup=False, soft_wrap=True)


def print_next_commands(console: Console, home: Path, days: Sequence[str]) -> None:
    """Prints commands to look into a home, ready to paste in any folder, and the places to look at in the UI."""
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
