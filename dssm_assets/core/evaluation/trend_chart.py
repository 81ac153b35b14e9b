"""The chart of the trend, as PNG bytes.

Belongs here: drawing it. Does not belong here: its numbers (`trend.py`), colours and strokes (`chart_style.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.chart_style import (
    INK,
    MODEL_COLOR,
    MUTED,
    SCOPE_TITLES,
    colors_of,
    display_name,
    legend_below,
    plain_axis,
    png_bytes,
    scorers_in_order,
)
from dssm_assets.core.evaluation.hit_counts import SCOPE, SCORER
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.trend import DAY
from dssm_assets.core.evaluation.truth import Scope

MARKERS = ("s", "^", "v", "D", "P")
MAX_TICKS = 7


def trend_png(trend: pa.Table, k: int, scopes: Sequence[Scope] = (Scope.ALL, Scope.DISCOVERY)) -> bytes:
    """Returns a PNG with one panel per scope: hit_rate@k over the days, the model's with its 95% interval as a band.

    Days stand at their dates, so a day that was not evaluated is a wider step.

    Args:
        trend: as of `trend_table`.
        k: its cut-off, for the label.
        scopes: the panels, left to right; a scope without rows is left out.

    Raises:
        InputError: if no scope has rows.
    """
    rows = trend.to_pylist()
    shown = [scope for scope in scopes if any(row[SCOPE] == scope for row in rows)]
    if not shown:
        raise InputError(Fault("trend chart", "days with users", "none", "draw it once a day has a hit rate"))
    figure = Figure(figsize=(4.6 * len(shown) + 0.3, 4.0), dpi=100, facecolor="white")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    names = scorers_in_order(sorted({str(row[SCORER]) for row in rows}))
    days = sorted({str(row[DAY]) for row in rows})
    for axis, scope in zip(axes, shown, strict=True):
        _panel(axis, [row for row in rows if row[SCOPE] == scope], names, days)
        axis.set_title(SCOPE_TITLES[scope], fontsize=11, color=INK, loc="left", pad=10)
    axes[0].set_ylabel(f"hit rate@{k}", fontsize=10, color=MUTED)
    legend_below(figure, axes[0])
    left = 0.07 if len(shown) > 1 else 0.12
    figure.subplots_adjust(left=left, right=0.98, top=0.89, bottom=0.21, wspace=0.13)
    return png_bytes(figure)


def _panel(axis: Any, rows: list[dict[str, Any]], names: Sequence[str], days: Sequence[str]) -> None:
    plain_axis(axis)
    colors = colors_of(names)
    baselines = [name for name in names if name != ScorerName.MODEL]
    for name in names:
        own = sorted((row for row in rows if row[SCORER] == name), key=lambda row: str(row[DAY]))
        x = np.array([_ordinal(row[DAY]) for row in own])
        rate, low, high = (np.array([row[column] for row in own]) for column in ("hit_rate", "ci_low", "ci_high"))
        if name == ScorerName.MODEL:
            axis.fill_between(x, low, high, color=MODEL_COLOR, alpha=0.16, linewidth=0, zorder=2)
            if len(x) == 1:  # a band over one day has no width
                axis.errorbar(x, rate, yerr=np.maximum([rate - low, high - rate], 0), ecolor=MODEL_COLOR, fmt="none", capsize=3)
            stroke = {"linewidth": 2.4, "marker": "o", "markersize": 5, "zorder": 4}
        else:
            stroke = {"linewidth": 1.3, "marker": MARKERS[baselines.index(name) % len(MARKERS)], "markersize": 4, "zorder": 3}
        label = "model, with its 95% interval" if name == ScorerName.MODEL else display_name(name)
        axis.plot(x, rate, color=colors[name], label=label, **stroke)
    ticks = _ticks(days)
    axis.set_xticks([_ordinal(day) for day in ticks], [day[5:] if day[:4] == days[-1][:4] else day for day in ticks])
    axis.set_xlim(_ordinal(days[0]) - 0.6, _ordinal(days[-1]) + 0.6)
    axis.set_ylim(bottom=0)
    axis.margins(y=0.08)


def _ticks(days: Sequence[str]) -> list[str]:
    """Returns some of the days, evenly chosen, the last among them."""
    step = -(-len(days) // MAX_TICKS)
    return list(days[::-1][::step][::-1])


def _ordinal(day: str) -> int:
    return dt.date.fromisoformat(day).toordinal()
