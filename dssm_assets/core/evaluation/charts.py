"""Charts as PNG bytes: hit rates of a day, hit rates by segment, the trend over days, the curves of a training.

matplotlib takes 100 MiB, so it is imported only when a chart is drawn.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, SEGMENT, TRUTH_COUNT, VALUE
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation import labels
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.evaluation.rates import DAY
from dssm_assets.core.names import Population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#22303c", "#5d6b78", "#e4e8ec"
MODEL_COLOR = labels.color_of(MODEL)
PALETTE_COLORS = 128
PANELS_IN_ROW = 3
LABEL_INCHES = 1.75
"""Width of a legend entry."""


def _new_figure(width: float, height: float, panel_rows: int = 1, panel_columns: int = 1) -> tuple[Figure, list[Any]]:
    """Returns a white figure of this size in inches, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    return figure, list(figure.subplots(panel_rows, panel_columns, squeeze=False).ravel())


def _style_axis(axis: Any, title: str = "", grid: str = "y") -> None:
    axis.set_axisbelow(True)
    axis.grid(axis=grid, color=GRID, linewidth=0.9)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=9, length=0)
    axis.set_title(title, fontsize=11, color=INK, loc="left", pad=10)


def _legend_below(figure: Figure, axis: Any) -> float:
    """Puts the legend of an axis below all panels, in as many rows as needed. Returns the bottom of the panels."""
    handles, texts = axis.get_legend_handles_labels()
    rows = math.ceil(len(texts) * LABEL_INCHES / figure.get_figwidth())
    figure.legend(
        handles, texts, loc="lower center", ncols=math.ceil(len(texts) / rows), frameon=False, fontsize=9, labelcolor=INK,
        handlelength=1.6, handleheight=1.0, columnspacing=1.4,
    )  # fmt: skip
    return float((0.56 + 0.18 * rows) / figure.get_figheight())


def png_bytes(figure: Figure) -> bytes:
    """Returns a figure as PNG without metadata. The palette of 128 colours makes the file four times smaller."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    buffer = io.BytesIO()
    picture.quantize(PALETTE_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "png")
    return buffer.getvalue()


def hit_rate_png(total: pa.Table, *, spans: labels.Spans | None = None) -> bytes:
    """Draws one panel per scope: hit_rate@k of the model and every baseline, with 95% intervals.

    Args:
        total: total_hit_rate of a day with warm users.
        spans: how far back baselines read; shown with their names.
    """
    rows = [row for row in total.to_pylist() if row[POPULATION] == Population.WARM]
    shown = [scope for scope in labels.CHART_SCOPES if any(row[SCOPE] == scope for row in rows)]
    columns = min(len(shown), PANELS_IN_ROW)
    panel_rows = math.ceil(len(shown) / columns)
    figure, axes = _new_figure(3.0 * columns + 0.5, 3.4 * panel_rows + 0.6, panel_rows, columns)
    names = labels.scorers_in_order(str(row[SCORER]) for row in rows)
    for axis, scope in zip(axes, shown, strict=False):
        _style_axis(axis, labels.SCOPES[scope].title)
        _draw_hit_rates(axis, [row for row in rows if row[SCOPE] == scope], names, spans)
    for axis in axes[::columns]:
        axis.set_ylabel("hit rate", fontsize=10, color=MUTED)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    bottom, top = _legend_below(figure, axes[0]), 1 - 0.44 / figure.get_figheight()
    figure.subplots_adjust(left=0.06 if len(shown) > 1 else 0.14, right=0.985, top=top, bottom=bottom, wspace=0.17, hspace=0.3)
    return png_bytes(figure)


def loss_curve_png(loss_by_step: Sequence[float], hit_rates: Sequence[float] = ()) -> bytes:
    """Draws the training loss: each step pale, the running mean over 2% of the steps strong. Returns a PNG.

    With hit rates, a second panel shows them by epoch, and marks the best.

    Args:
        loss_by_step: loss of step 1, 2, ...
        hit_rates: on the validation days, after epoch 1, 2, ...

    Raises:
        InputError: there are no steps, or a number is not finite.
    """
    losses, rates = np.asarray(loss_by_step, dtype=np.float64), np.asarray(hit_rates, dtype=np.float64)
    broken = int((~np.isfinite(losses)).sum() + (~np.isfinite(rates)).sum())
    if not len(losses) or broken:
        got = f"{len(losses)} steps, {broken} of them not finite"
        raise InputError(Fault("loss curve", "finite losses of at least one step", got, "lower the learning rate"))
    is_wide = len(rates) > 0
    figure, axes = _new_figure(9.5 if is_wide else 7.6, 3.8, panel_columns=2 if is_wide else 1)
    _draw_loss(axes[0], losses)
    if is_wide:
        _draw_validation(axes[1], rates)
    figure.subplots_adjust(left=0.06 if is_wide else 0.08, right=0.96 if is_wide else 0.92, top=0.88, bottom=0.15)
    return png_bytes(figure)


def _draw_loss(axis: Any, losses: npt.NDArray[np.float64]) -> None:
    steps = np.arange(1, len(losses) + 1)
    span = max(1, len(losses) // 50)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    mean = (sums[span:] - sums[:-span]) / span
    _style_axis(axis, "training loss")
    axis.plot(steps, losses, color=MODEL_COLOR, alpha=0.28, linewidth=0.9)
    axis.plot(steps[span - 1 :], mean, color=MODEL_COLOR, linewidth=2.0, marker="o" if len(mean) == 1 else None)
    axis.set_xlabel("step", fontsize=10, color=MUTED)
    axis.set_xlim(1, max(len(losses), 2))
    axis.annotate(
        f"{mean[-1]:.3f}", (steps[-1], mean[-1]), xytext=(5, 0), textcoords="offset points", color=MODEL_COLOR, fontsize=10,
        va="center", annotation_clip=False,
    )  # fmt: skip


def _draw_validation(axis: Any, rates: npt.NDArray[np.float64]) -> None:
    epochs, best = np.arange(1, len(rates) + 1), int(np.argmax(rates))
    _style_axis(axis, "hit rate on the validation days")
    axis.plot(epochs, rates, color=MODEL_COLOR, linewidth=2.0, marker="o", markersize=3.5)
    axis.plot(epochs[best], rates[best], color=MODEL_COLOR, marker="o", markersize=8)
    axis.set_xlabel("epoch", fontsize=10, color=MUTED)
    axis.set_xticks(epochs[:: max(1, len(epochs) // 10)])
    axis.set_xlim(0.5, len(rates) + 0.5)
    axis.annotate(
        f"{rates[best]:.3f}", (epochs[best], rates[best]), xytext=(0, 8), textcoords="offset points", color=MODEL_COLOR,
        fontsize=10, ha="center", annotation_clip=False,
    )  # fmt: skip


def _draw_hit_rates(axis: Any, rows: list[dict[str, Any]], names: Sequence[str], spans: labels.Spans | None) -> None:
    ks = sorted({int(row["k"]) for row in rows})
    width = 0.82 / len(names)
    for place, name in enumerate(names):
        own = sorted((row for row in rows if row[SCORER] == name), key=lambda row: int(row["k"]))
        x = np.array([ks.index(row["k"]) for row in own]) + (place - (len(names) - 1) / 2) * width
        rate, low, high = (np.array([row[column] for row in own]) for column in ("hit_rate", "ci_low", "ci_high"))
        # The percentile interval of few users may not contain their rate; a whisker cannot have a negative length.
        whiskers = np.maximum([rate - low, high - rate], 0)
        axis.bar(x, rate, width * 0.9, color=labels.color_of(name), label=labels.display_name(name, spans), zorder=2)
        axis.errorbar(x, rate, yerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6, alpha=0.75, zorder=3)
    axis.set_xticks(range(len(ks)), [f"@{k}" for k in ks])
    axis.set_ylim(bottom=0)


MAX_ROWS = 60
"""At most so many values are drawn. The table next to the chart has all values."""
LABEL_CHARS = 28
ROW_INCHES = 0.25
_STEP = 0.36
"""Distance between the scorers of a row, in rows."""


def segment_png(segments: Mapping[str, pa.Table], k: int) -> bytes:
    """Draws one row per value of a segment: each scorer's hit_rate@k with its 95% interval, and the number of users.

    The dashed line is the first scorer's rate over all users.

    Args:
        segments: scorer -> its hit rate per segment, over the same users; at least one row each.
    """
    by_scorer = {name: one.to_pylist() for name, one in segments.items()}
    rows = next(iter(by_scorer.values()))
    shown = rows[:MAX_ROWS]
    num_lines = len(shown) + len({row[SEGMENT] for row in shown})
    height = ROW_INCHES * num_lines + 1.1
    figure, (axis,) = _new_figure(8.2, height)
    _style_axis(axis, grid="x")
    for heading, (segment, group) in enumerate(groupby(enumerate(shown), key=lambda pair: str(pair[1][SEGMENT]))):
        places = [place for place, _ in group]
        axis.text(-0.01, places[0] + heading, segment.replace("_", " "), transform=axis.get_yaxis_transform(), ha="right",
                  va="center", fontsize=9, color=INK, fontweight="bold", parse_math=False)  # fmt: skip
        for place in places:
            label = drawable(str(shown[place][VALUE]), place)
            _draw_segment(axis, place + heading + 1, label, {name: one[place] for name, one in by_scorer.items()})
    first = [row for row in rows if row[SEGMENT] == rows[0][SEGMENT]]
    overall = sum(row["hits"] for row in first) / sum(row[TRUTH_COUNT] for row in first)
    axis.axvline(overall, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
    axis.set_ylim(num_lines - 0.4, -0.6)
    ends = [row["ci_high"] for one in by_scorer.values() for row in one[:MAX_ROWS]]
    axis.set_xlim(0, max(1e-3, min(1.0, max([*ends, overall]) * 1.06)))
    axis.set_yticks([])
    more = f"; {len(rows) - MAX_ROWS} more values in the table" if len(rows) > MAX_ROWS else ""
    named = labels.display_name(next(iter(segments)))
    axis.set_xlabel(f"hit rate@{k}, 95% interval; dashed: {named}, all users, {overall:.3f}{more}", fontsize=9, color=MUTED)
    above = 1 + 0.1 / (height - 0.95)
    for number, name in enumerate(segments):
        title, color = f"● {labels.display_name(name)}", labels.color_of(name)
        axis.text(0.3 * number, above, title, transform=axis.transAxes, fontsize=9, color=color)
    figure.subplots_adjust(left=0.29, right=0.83, top=1 - 0.35 / height, bottom=0.6 / height)
    axis.text(1.02, above, "users / to find", transform=axis.transAxes, fontsize=9, color=MUTED)
    return png_bytes(figure)


def _draw_segment(axis: Any, y: int, label: str, rows: dict[str, dict[str, Any]]) -> None:
    for place, (name, row) in enumerate(rows.items()):
        at, color = y + _STEP * (place - (len(rows) - 1) / 2), labels.color_of(name)
        axis.plot(
            [row["ci_low"], row["ci_high"]], [at, at], color=color, linewidth=1.6, alpha=0.55, solid_capstyle="butt", zorder=2
        )
        axis.plot([row["hit_rate"]], [at], "o", color=color, markersize=6 if len(rows) == 1 else 4.5, zorder=3, clip_on=False)
    at_row, row = axis.get_yaxis_transform(), next(iter(rows.values()))
    axis.text(-0.01, y, label, transform=at_row, ha="right", va="center", fontsize=9, color=MUTED, parse_math=False)
    counts = f"{row['users']:,} / {row[TRUTH_COUNT]:,}"
    axis.text(1.02, y, counts, transform=at_row, va="center", fontsize=8.5, color=MUTED)


def drawable(text: str, place: int) -> str:
    """Shortens a label to characters that the chart's font has. If none is left, returns its row number in the table."""
    short = text if len(text) <= LABEL_CHARS else text[: LABEL_CHARS - 1] + "…"
    return short if set(map(ord, short)) <= _font_characters() else f"row {place + 1} of the table"


@functools.cache
def _font_characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


MARKERS = ("s", "^", "v", "D", "P", "X", "*")
MAX_TICKS = 7


def trend_png(trend: pa.Table, k: int) -> bytes:
    """Draws one panel per scope: hit_rate@k over the days, with the model's 95% interval as a band.

    Days are placed by date, so a day without evaluation leaves a gap.

    Args:
        trend: as from `trend_table`, with at least one row.
    """
    rows = trend.to_pylist()
    shown = [scope for scope in labels.TREND_SCOPES if any(row[SCOPE] == scope for row in rows)]
    figure, axes = _new_figure(min(4.6 * len(shown), 11.4) + 0.3, 4.0, panel_columns=len(shown))
    names = labels.scorers_in_order(str(row[SCORER]) for row in rows)
    days = sorted({str(row[DAY]) for row in rows})
    for axis, scope in zip(axes, shown, strict=True):
        _style_axis(axis, labels.SCOPES[scope].title)
        _draw_trend_panel(axis, [row for row in rows if row[SCOPE] == scope], names, days)
    axes[0].set_ylabel(f"hit rate@{k}", fontsize=10, color=MUTED)
    bottom = _legend_below(figure, axes[0])
    left = 0.07 if len(shown) > 1 else 0.12
    figure.subplots_adjust(left=left, right=0.98, top=0.89, bottom=bottom, wspace=0.13)
    return png_bytes(figure)


def _draw_trend_panel(axis: Any, rows: list[dict[str, Any]], names: Sequence[str], days: Sequence[str]) -> None:
    baselines = [name for name in names if name != MODEL]
    for name in names:
        own = sorted((row for row in rows if row[SCORER] == name), key=lambda row: str(row[DAY]))
        x = np.array([_ordinal(row[DAY]) for row in own])
        rate, low, high = (np.array([row[column] for row in own]) for column in ("hit_rate", "ci_low", "ci_high"))
        if name == MODEL:
            axis.fill_between(x, low, high, color=MODEL_COLOR, alpha=0.16, linewidth=0, zorder=2)
            if len(x) == 1:  # a band over one day has no width
                axis.errorbar(x, rate, yerr=np.maximum([rate - low, high - rate], 0), ecolor=MODEL_COLOR, fmt="none", capsize=3)
            stroke = {"linewidth": 2.4, "marker": "o", "markersize": 5, "zorder": 4}
        else:
            stroke = {"linewidth": 1.3, "marker": MARKERS[baselines.index(name) % len(MARKERS)], "markersize": 4, "zorder": 3}
        label = f"{labels.display_name(name)} (95% interval)" if name == MODEL else labels.display_name(name)
        axis.plot(x, rate, color=labels.color_of(name), label=label, **stroke)
    ticks = days[::-1][:: -(-len(days) // MAX_TICKS)][::-1]
    axis.set_xticks([_ordinal(day) for day in ticks], [day[5:] if day[:4] == days[-1][:4] else day for day in ticks])
    axis.set_xlim(_ordinal(days[0]) - 0.6, _ordinal(days[-1]) + 0.6)
    axis.set_ylim(bottom=0)
    axis.margins(y=0.08)


def _ordinal(day: str) -> int:
    return dt.date.fromisoformat(day).toordinal()
