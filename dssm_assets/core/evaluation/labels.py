"""Names, colours and order of scorers and scopes for readers: in the terminal, charts and the report."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY, CHANNEL, MERGED, MERGED_WITHOUT, MODEL, is_part
from dssm_assets.core.names import BASELINES, Scope

BASELINE_COLORS: Final = ("#22303c", "#0077bb", "#88ccee", "#993377", "#ddaa33", "#ee7733", "#999999", "#8822dd", "#553311")
"""Colours of baselines, by position in the registry. Any two are distinguishable, also with each of the three kinds of colour blindness."""


class ScorerLabel(NamedTuple):
    name: str
    color: str


class ScopeLabel(NamedTuple):
    """A scope for readers: its heading, and a description of the items to find."""

    title: str
    meaning: str


_COLORED = zip(BASELINES.items(), itertools.cycle(BASELINE_COLORS), strict=False)
SCORERS: Final[Mapping[str, ScorerLabel]] = {
    MODEL: ScorerLabel("two-tower model", "#cc3311"),
    MERGED: ScorerLabel("merged list", "#117733"),
    **{name: ScorerLabel(baseline.label, color) for (name, baseline), color in _COLORED},
    CATEGORY_POPULARITY: ScorerLabel("popularity by category", "#aa7744"),
}
"""Scorer -> its label, in the order of display."""

SCOPES: Final[Mapping[Scope, ScopeLabel]] = {
    Scope.ALL: ScopeLabel("All items", "every item that these users interacted with on the day"),
    Scope.DISCOVERY: ScopeLabel(
        "Discovery: items not in the window",
        "items that the user did not interact with in the window; the others are not offered",
    ),
    Scope.REPEAT: ScopeLabel("Repeat: items of the window", "items that the user interacted with in the window already"),
    Scope.NEW: ScopeLabel("New: not in the history", "items that the user never interacted with before, in all stored days"),
    Scope.UNSEEN: ScopeLabel(
        "Unseen: new, own history left out",
        "the items of `new`, in lists without anything that the user ever interacted with before",
    ),
    Scope.COLD: ScopeLabel(
        "Cold: items without any event",
        "items that nobody interacted with before, in all stored days, in lists of such items alone; all users count",
    ),
}
"""Scope -> its label, in the order of display."""
CHART_SCOPES: Final = tuple(scope for scope in SCOPES if scope is not Scope.COLD)
"""Scopes in the chart of a day: every scorer is counted in these."""
TREND_SCOPES: Final = (Scope.ALL, Scope.DISCOVERY, Scope.UNSEEN)
"""Scopes in the trend over days."""


@dataclass(frozen=True)
class Spans:
    """The spans of days before an evaluation day that the baselines read.

    Attributes:
        window: days of the training window.
        history: days of the user histories.
        recent_hours: half-life of recent popularity. None: unknown.
    """

    window: int
    history: int
    recent_hours: float | None = None

    @classmethod
    def from_config(cls, config: PipelineConfig, ds: str, recent_hours: float | None) -> Spans:
        """Returns the spans for an evaluation day. The history reaches back to the calendar's start, or window.history_days.

        Example: the calendar starts on January 1st and the window has 6 days. On January 12th the spans are 6 and 11 days.
        """
        window, limit = config.window.days, config.window.history_days
        stored = (dt.date.fromisoformat(ds) - config.calendar.start).days
        return cls(window, stored if limit is None else min(stored, limit), recent_hours)

    def add_to(self, scorer: str, name: str) -> str:
        """Appends the number of days, or the half-life, that a scorer reads to its name. A scorer without either keeps its name."""
        if scorer == "recent_popularity" and self.recent_hours is not None:
            days = self.recent_hours / 24
            return f"popularity, half-life {f'{days:g} d' if days >= 1 else f'{self.recent_hours:g} h'}"
        known = {
            "popularity": (f"{name},", self.window),
            "own_history_window": (name.removesuffix(" window"), self.window),
            "own_history_all": (name.removesuffix(" days"), self.history),
        }
        if scorer not in known:
            return name
        words, count = known[scorer]
        return f"{words} {count} day{'' if count == 1 else 's'}"


def display_name(scorer: str, spans: Spans | None = None) -> str:
    """Returns a scorer's name for readers. An unknown scorer keeps its stored name.

    Example: `popularity` is "popularity", and with spans "popularity, 30 days".
    """
    for prefix, words in ((MERGED_WITHOUT, "merged list without"), (CHANNEL, "channel")):
        if scorer.startswith(prefix):
            return f"{words} {scorer.removeprefix(prefix).replace('_', ' ')}"
    name = scorer.replace("_", " ")
    if scorer in SCORERS:
        name = SCORERS[scorer].name
    elif scorer in BASELINES:  # a plug-in's baseline
        name = BASELINES[scorer].label
    return name if spans is None else spans.add_to(scorer, name)


def describe_border(key: str, best: float, lowest: float, highest: float, remedy: str) -> str | None:
    """Returns a remark if the best value of a search is the lowest or the highest value tried, else None.

    By hand: 64 to 128 were tried and 128 is best: a remark. A best value of 0 gets none, since nothing is below it.
    """
    if 0 < lowest >= best or best >= highest:
        end = "highest" if best >= highest else "lowest"
        return f"{key}: the best value, {best:g}, is at the {end} end of the tried values, and one beyond it may be better; {remedy}"
    return None


def color_of(scorer: str) -> str:
    """Returns a scorer's colour, the same in every chart; grey for an unknown one."""
    return SCORERS[scorer].color if scorer in SCORERS else "#999999"


def scorers_in_order(names: Iterable[str]) -> list[str]:
    """Returns distinct scorers: known scorers in the order of display, then others by name.

    Single channels and merged lists without a channel are left out; the report has a separate table for them.
    """
    names = [name for name in names if not is_part(name)]
    known = {name: place for place, name in enumerate(SCORERS)}
    return sorted(set(names), key=lambda name: (known.get(name, len(known)), name))
