"""How every chart looks, and its bytes: the same numbers give the same bytes.

Belongs here: colours, names, strokes, the PNG. Does not belong here: what a chart shows (`charts.py`, `segment_chart.py`,
`trend_chart.py`). Only objects are used, never pyplot: its current figure is state that concurrent runs would share.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.truth import Scope

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
