"""The headline of the report: what is served, what recommendation is for, the reference's figure, cold items, and what looks worst.

In this order: the merged list over all items, which is what users get; vectors alone on items that are new to a user, which is what
they are there for; vectors alone over all items, the figure of the reference solution; vectors alone on items without any event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, SEGMENT, TRUTH_COUNT, VALUE
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY, MERGED, MERGED_WITHOUT, MODEL
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.rates import Gain
from dssm_assets.core.evaluation.report_text import cell, table, with_interval
from dssm_assets.core.evaluation.scopes import Scope, counted_population

_Rows = Mapping[tuple[str, str], Mapping[str, Any]]
MIN_SEGMENT_ITEMS: Final = 100
"""Items to find that a segment must have to be called the worst: below, chance decides."""


@dataclass(frozen=True)
class _Figure:
    what: str
    scorer: str
    scope: Scope
    baselines: tuple[str, ...]
    """Baselines that are shown in any case, in addition to the best."""


_FIGURES: Final = (
    _Figure("merged list, all items", MERGED, Scope.ALL, ()),
    _Figure("vectors alone, items new to the user, its own history left out", MODEL, Scope.UNSEEN, ("popularity", "ease")),
    _Figure("vectors alone, all items: the figure of the reference solution", MODEL, Scope.ALL, ()),
    _Figure("vectors alone, cold items among themselves", MODEL, Scope.COLD, (CATEGORY_POPULARITY,)),
)


def headline(
    total: pa.Table,
    gains: Sequence[Gain],
    merged_gains: Sequence[Gain],
    channels: Sequence[Gain],
    segments: Mapping[str, pa.Table],
) -> str:
    """Returns the figures as a table, the most important first, and the sentences on what looks worst.

    Args:
        gains: the model against the best baseline of each scope.
        segments: scorer -> its hit rate per segment, what is served first.
    """
    k = max(total.column("k").to_pylist())
    rows = {
        (str(row[SCORER]), str(row[SCOPE])): row
        for row in total.to_pylist()
        if row["k"] == k and row[POPULATION] == counted_population(Scope(row[SCOPE]))
    }
    over = {(gain.scorer, str(gain.scope)): gain for gain in (*gains, *merged_gains)}
    body = [line for figure in _FIGURES if (line := _line(figure, rows, over))]
    if not body:
        return "No known user has a known item to find."
    worst = _worst([*gains, *merged_gains], rows, channels, segments)
    head = ["", f"hit_rate@{k}", "items to find", "compared with", "gain over the best baseline"]
    return "\n\n".join(
        [
            table("The figures of the day, the most important first", head, body),
            *(["Where it looks worst:", "\n".join(worst)] if worst else []),
        ]
    )


def _line(figure: _Figure, rows: _Rows, over: Mapping[tuple[str, str], Gain]) -> list[str] | None:
    key = figure.scorer, str(figure.scope)
    if key not in rows:
        return None
    gain = over.get(key)
    names = dict.fromkeys((*figure.baselines, *([] if gain is None else [gain.against])))
    compared = [f"{display_name(name)} {rows[name, key[1]]['hit_rate']:.3f}" for name in names if (name, key[1]) in rows]
    found = rows[key]
    what = f"**{figure.what}**"
    number = f"**{with_interval(found)}**"
    return [what, number, f"{found[TRUTH_COUNT]:,}", ", ".join(compared) or "-", "-" if gain is None else gain_text(gain)]


def gain_text(gain: Gain) -> str:
    """Returns a gain with its interval and what that says: ahead, behind, or neither."""
    return f"{gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}], {verdict(gain)}"


def verdict(gain: Gain) -> str:
    """Returns whether the whole interval is above zero, below it, or neither."""
    return "ahead" if gain.ci_low > 0 else "behind" if gain.ci_high < 0 else "not distinguishable"


def gain_line(gain: Gain) -> str:
    """Returns a gain as an item of a list: who is ahead of whom, or behind, on which items, and by how much."""
    words = {"ahead": "ahead of", "behind": "behind", "not distinguishable": "not distinguishable from"}[verdict(gain)]
    return (
        f"- {_subject(gain.scorer)}, {gain.scope} items: {words} the best baseline, {display_name(gain.against)}, "
        f"by {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}] at k = {gain.k}"
    )


def _subject(scorer: str) -> str:
    name = display_name(scorer)
    return name[:1].upper() + name[1:]


def _worst(gains: Sequence[Gain], rows: _Rows, channels: Sequence[Gain], segments: Mapping[str, pa.Table]) -> list[str]:
    """Returns what a reader should know before trusting the figures above."""
    found = []
    behind = sorted((gain for gain in gains if gain.ci_low <= 0), key=lambda gain: gain.gain)
    if behind:
        found.append(f"{gain_line(behind[0])}.")
    for gain in channels:
        if gain.against == f"{MERGED_WITHOUT}vectors" and gain.ci_low <= 0:
            interval = f"{gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]"
            found.append(f"- The merged list would find nearly as much without the vectors: they are worth {interval}.")
    served, of_served = next(iter(segments.items()))
    large = [row for row in of_served.to_pylist() if row[TRUTH_COUNT] >= MIN_SEGMENT_ITEMS]
    if large:
        row = min(large, key=lambda row: (row["hit_rate"], str(row[SEGMENT]), str(row[VALUE])))
        segment = cell(f"{row[SEGMENT]} {row[VALUE]}".replace("_", " "))
        found.append(f"- {_subject(served)}, segment {segment}: {with_interval(row)} of {row[TRUTH_COUNT]:,} items to find.")
    return found
