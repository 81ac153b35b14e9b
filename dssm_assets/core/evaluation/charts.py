"""The chart of a day's hit rates and the curves of a training, as PNG bytes.

Belongs here: drawing these two. Does not belong here: computing what is drawn, colours and strokes (`chart_style.py`).
"""

from __future__ import annotations

import datetime as dt
import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from PIL import Image

from dssm_assets.core.columns import SEGMENT, VALUE
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER, TRUTH_COUNT
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.truth import Population, Scope

INK, MUTED, GRID = "#22303c", "#5d6b78", "#e4e8ec"
MODEL_COLOR = "#cc3311"
BASELINE_COLORS = ("#22303c", "#0077bb", "#88ccee", "#ddaa33", "#999999")
"""Told apart from each other and from the model's also by eyes that lack one of the three kinds of cones."""
PALETTE_COLORS = 128
SCORER_ORDER = tuple(ScorerName)
SCOPE_TITLES = {
    Scope.ALL: "all items",
    Scope.DISCOVERY: "discovery: not taken in the window",
    Scope.REPEAT: "repeat: taken in the window before",
}


def display_name(scorer: str) -> str:
    """Returns a scorer's name as a reader sees it."""
    return scorer.replace("_", " ")


def scorers_in_order(names: Sequence[str]) -> list[str]:
    """Returns scorers for display: the model, the known baselines, then any other by name."""
    known: dict[str, int] = {str(name): place for place, name in enumerate(SCORER_ORDER)}
    return sorted(names, key=lambda name: (known.get(name, len(known)), name))


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """Returns the colour of each scorer; that of the model is the same whoever else is there."""
    baselines = [name for name in names if name != ScorerName.MODEL]
    colors = {name: BASELINE_COLORS[place % len(BASELINE_COLORS)] for place, name in enumerate(baselines)}
    return {ScorerName.MODEL: MODEL_COLOR, **colors}


def plain_axis(axis: Any, grid: str = "y") -> None:
    """Leaves of an axis what carries meaning: a pale grid and the bottom line."""
    axis.set_axisbelow(True)
    axis.grid(axis=grid, color=GRID, linewidth=0.9)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=9, length=0)


def legend_below(figure: Figure, axis: Any) -> None:
    """Puts the legend of an axis below all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=min(len(labels), 7), frameon=False, fontsize=9, labelcolor=INK,
        handlelength=1.6, handleheight=1.0, columnspacing=1.4,
    )  # fmt: skip


def png_bytes(figure: Figure) -> bytes:
    """Returns the figure as a PNG without metadata, in a palette of its own 128 colours: a quarter of the full size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    buffer = io.BytesIO()
    picture.quantize(PALETTE_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "png")
    return buffer.getvalue()


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


MAX_ROWS = 60
"""Values that are drawn; the table beside the chart has them all."""
LABEL_CHARS = 28
ROW_INCHES = 0.25


def segment_png(segments: pa.Table, k: int) -> bytes:
    """Returns a PNG with a row per value: the model's hit_rate@k with its 95% interval, and how many users stand behind it.

    The dashed line is the rate over everybody.

    Args:
        segments: as of `segment_table`.
        k: length of the lists, for the label.

    Raises:
        InputError: if there are no rows.
    """
    rows = segments.to_pylist()
    if not rows:
        raise InputError(Fault("segment chart", "segments with users", "none", "draw it for a day that has truth"))
    shown = rows[:MAX_ROWS]
    lines = _lines(shown)
    height = ROW_INCHES * len(lines) + 1.1
    figure = Figure(figsize=(8.2, height), dpi=100, facecolor="white")
    axis = figure.subplots()
    plain_axis(axis, grid="x")
    for y, (label, row) in enumerate(lines):
        if row is None:
            axis.text(-0.01, y, label, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=9,
                      color=INK, fontweight="bold", parse_math=False)  # fmt: skip
        else:
            _draw(axis, y, label, row)
    first = [row for row in rows if row[SEGMENT] == rows[0][SEGMENT]]
    overall = sum(row["hits"] for row in first) / sum(row[TRUTH_COUNT] for row in first)
    axis.axvline(overall, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
    axis.set_ylim(len(lines) - 0.4, -0.6)
    axis.set_xlim(0, max(1e-3, min(1.0, max([row["ci_high"] for row in shown] + [overall]) * 1.06)))
    axis.set_yticks([])
    more = f"; {len(rows) - MAX_ROWS} more values in the table" if len(rows) > MAX_ROWS else ""
    axis.set_xlabel(f"hit rate@{k} of the model, 95% interval; dashed: everybody, {overall:.3f}{more}", fontsize=9, color=MUTED)
    figure.subplots_adjust(left=0.29, right=0.83, top=1 - 0.35 / height, bottom=0.6 / height)
    axis.text(1.02, 1 + 0.1 / (height - 0.95), "users / to find", transform=axis.transAxes, fontsize=9, color=MUTED)
    return png_bytes(figure)


def _lines(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any] | None]]:
    """Returns a heading (no row) before each segment's values."""
    lines: list[tuple[str, dict[str, Any] | None]] = []
    for place, row in enumerate(rows):
        if not place or rows[place - 1][SEGMENT] != row[SEGMENT]:
            lines.append((str(row[SEGMENT]).replace("_", " "), None))
        lines.append((drawable(str(row[VALUE]), place), row))
    return lines


def _draw(axis: Any, y: int, label: str, row: dict[str, Any]) -> None:
    rate, low, high = row["hit_rate"], row["ci_low"], row["ci_high"]
    axis.plot([low, high], [y, y], color=MODEL_COLOR, linewidth=1.6, alpha=0.55, solid_capstyle="butt", zorder=2)
    axis.plot([rate], [y], "o", color=MODEL_COLOR, markersize=6, zorder=3, clip_on=False)
    beside = axis.get_yaxis_transform()
    axis.text(-0.01, y, label, transform=beside, ha="right", va="center", fontsize=9, color=MUTED, parse_math=False)
    counts = f"{row['users']:,} / {row[TRUTH_COUNT]:,}"
    axis.text(1.02, y, counts, transform=beside, va="center", fontsize=8.5, color=MUTED)


def drawable(text: str, place: int) -> str:
    """Returns a label that the chart's font can draw: shortened, or the row's number in the table where it cannot."""
    short = text if len(text) <= LABEL_CHARS else text[: LABEL_CHARS - 1] + "…"
    return short if set(map(ord, short)) <= _drawn() else f"row {place + 1} of the table"


@functools.cache
def _drawn() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


DAY = "day"
TREND_COLUMNS = (SCOPE, SCORER, "hit_rate", "ci_low", "ci_high", "users")
TREND_SCHEMA = pa.schema(
    [(name, pa.string()) for name in (DAY, SCOPE, SCORER)]
    + [(name, pa.float64()) for name in ("hit_rate", "ci_low", "ci_high")]
    + [("users", pa.int64())]
)


def trend_table(totals: Iterable[tuple[str, pa.Table]], k: int, population: Population = Population.WARM) -> pa.Table:
    """Returns day, scope, scorer, hit_rate, ci_low, ci_high, users at one k; days in the order in which they come.

    A day that was scored at other k, or that has nobody in the population, has no rows: a gap is shown as a gap.

    Args:
        totals: (YYYY-MM-DD, total_hit_rate of that day); one is held at a time.
        k: cut-off.
        population: which pairs count.
    """
    parts = [TREND_SCHEMA.empty_table()]
    for day, total in totals:
        is_wanted = pc.and_(pc.equal(total.column("k"), k), pc.equal(total.column(POPULATION), str(population)))
        rows = total.filter(is_wanted).select(TREND_COLUMNS)
        days = pa.array([day] * rows.num_rows, pa.string())
        parts.append(rows.add_column(0, DAY, days).cast(TREND_SCHEMA))
    return pa.concat_tables(parts).combine_chunks()


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
        _draw_trend_panel(axis, [row for row in rows if row[SCOPE] == scope], names, days)
        axis.set_title(SCOPE_TITLES[scope], fontsize=11, color=INK, loc="left", pad=10)
    axes[0].set_ylabel(f"hit rate@{k}", fontsize=10, color=MUTED)
    legend_below(figure, axes[0])
    left = 0.07 if len(shown) > 1 else 0.12
    figure.subplots_adjust(left=left, right=0.98, top=0.89, bottom=0.21, wspace=0.13)
    return png_bytes(figure)


def _draw_trend_panel(axis: Any, rows: list[dict[str, Any]], names: Sequence[str], days: Sequence[str]) -> None:
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
