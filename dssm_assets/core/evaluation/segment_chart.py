"""The chart of hit rates by segment, as PNG bytes.

Belongs here: drawing it. Does not belong here: its numbers (`segments.py`), colours and strokes (`chart_style.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from dssm_assets.core.columns import SEGMENT, VALUE
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.chart_style import INK, MODEL_COLOR, MUTED, plain_axis, png_bytes
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT

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
