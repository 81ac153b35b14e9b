"""The chart of a day's hit rates and the curves of a training, as PNG bytes.

Belongs here: drawing these two. Does not belong here: computing what is drawn, colours and strokes (`chart_style.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
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
from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER
from dssm_assets.core.evaluation.truth import Population, Scope


def hit_rate_png(total: pa.Table, *, scopes: Sequence[Scope] = tuple(Scope), population: Population = Population.WARM) -> bytes:
    """Returns a PNG with one panel per scope: hit_rate@k of the model and every baseline, with 95% intervals.

    Args:
        total: total_hit_rate.
        scopes: the panels, left to right; a scope without users is left out.
        population: which pairs count.

    Raises:
        InputError: if no scope has users.
    """
    rows = [row for row in total.to_pylist() if row[POPULATION] == population]
    shown = [scope for scope in scopes if any(row[SCOPE] == scope for row in rows)]
    if not shown:
        raise InputError(
            Fault("hit rate chart", f"rows of population {population}", "none", "draw a population that has users")
        )
    figure = Figure(figsize=(3.0 * len(shown) + 0.5, 4.0), dpi=100, facecolor="white")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    names = scorers_in_order(sorted({str(row[SCORER]) for row in rows}))
    colors = colors_of(names)
    for axis, scope in zip(axes, shown, strict=True):
        _panel(axis, [row for row in rows if row[SCOPE] == scope], names, colors)
        axis.set_title(SCOPE_TITLES[scope], fontsize=11, color=INK, loc="left", pad=10)
    axes[0].set_ylabel("hit rate", fontsize=10, color=MUTED)
    legend_below(figure, axes[0])
    figure.subplots_adjust(left=0.06 if len(shown) > 1 else 0.14, right=0.985, top=0.89, bottom=0.19, wspace=0.17)
    return png_bytes(figure)


def loss_curve_png(loss_by_step: Sequence[float], hit_rates: Sequence[float] = ()) -> bytes:
    """Returns a PNG of the training loss over steps: each step pale, the running mean over 2% of the steps strong.

    With hit rates a second panel shows them by epoch, the best one marked.

    Args:
        loss_by_step: loss of step 1, 2, ...
        hit_rates: on the validation days, after epoch 1, 2, ...

    Raises:
        InputError: if there are no steps or a number is not finite.
    """
    losses, rates = np.asarray(loss_by_step, dtype=np.float64), np.asarray(hit_rates, dtype=np.float64)
    broken = int((~np.isfinite(losses)).sum() + (~np.isfinite(rates)).sum())
    if not len(losses) or broken:
        got = f"{len(losses)} steps, {broken} of them not finite"
        raise InputError(Fault("loss curve", "finite losses of at least one step", got, "lower the learning rate"))
    panels = 2 if len(rates) else 1
    figure = Figure(figsize=(7.6 if panels == 1 else 9.5, 3.8), dpi=100, facecolor="white")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _loss_panel(axes[0], losses)
    if len(rates):
        _hit_rate_panel(axes[1], rates)
    figure.subplots_adjust(left=0.08 if panels == 1 else 0.06, right=0.92 if panels == 1 else 0.96, top=0.88, bottom=0.15)
    return png_bytes(figure)


def _loss_panel(axis: Any, losses: npt.NDArray[np.float64]) -> None:
    steps = np.arange(1, len(losses) + 1)
    span = max(1, len(losses) // 50)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    mean = (sums[span:] - sums[:-span]) / span
    plain_axis(axis)
    axis.plot(steps, losses, color=MODEL_COLOR, alpha=0.28, linewidth=0.9)
    axis.plot(steps[span - 1 :], mean, color=MODEL_COLOR, linewidth=2.0, marker="o" if len(mean) == 1 else None)
    axis.set_title("training loss", fontsize=11, color=INK, loc="left", pad=10)
    axis.set_xlabel("step", fontsize=10, color=MUTED)
    axis.set_xlim(1, max(len(losses), 2))
    axis.annotate(
        f"{mean[-1]:.3f}", (steps[-1], mean[-1]), xytext=(5, 0), textcoords="offset points", color=MODEL_COLOR, fontsize=10,
        va="center", annotation_clip=False,
    )  # fmt: skip


def _hit_rate_panel(axis: Any, rates: npt.NDArray[np.float64]) -> None:
    epochs, best = np.arange(1, len(rates) + 1), int(np.argmax(rates))
    plain_axis(axis)
    axis.plot(epochs, rates, color=MODEL_COLOR, linewidth=2.0, marker="o", markersize=3.5)
    axis.plot(epochs[best], rates[best], color=MODEL_COLOR, marker="o", markersize=8)
    axis.set_title("hit rate on the validation days", fontsize=11, color=INK, loc="left", pad=10)
    axis.set_xlabel("epoch", fontsize=10, color=MUTED)
    axis.set_xticks(epochs[:: max(1, len(epochs) // 10)])
    axis.set_xlim(0.5, len(rates) + 0.5)
    axis.annotate(
        f"{rates[best]:.3f}", (epochs[best], rates[best]), xytext=(0, 8), textcoords="offset points", color=MODEL_COLOR,
        fontsize=10, ha="center", annotation_clip=False,
    )  # fmt: skip


def _panel(axis: Any, rows: list[dict[str, Any]], names: Sequence[str], colors: dict[str, str]) -> None:
    plain_axis(axis)
    ks = sorted({int(row["k"]) for row in rows})
    width = 0.82 / len(names)
    for place, name in enumerate(names):
        own = sorted((row for row in rows if row[SCORER] == name), key=lambda row: int(row["k"]))
        x = np.array([ks.index(row["k"]) for row in own]) + (place - (len(names) - 1) / 2) * width
        rate = np.array([row["hit_rate"] for row in own])
        below = rate - np.array([row["ci_low"] for row in own])
        above = np.array([row["ci_high"] for row in own]) - rate
        # A percentile interval may lie beside a rate of few users; a bar's whisker cannot have a negative length.
        whiskers = np.maximum([below, above], 0)
        axis.bar(x, rate, width * 0.9, color=colors[name], label=display_name(name), zorder=2)
        axis.errorbar(x, rate, yerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6, alpha=0.75, zorder=3)
    axis.set_xticks(range(len(ks)), [f"@{k}" for k in ks])
    axis.set_ylim(bottom=0)
