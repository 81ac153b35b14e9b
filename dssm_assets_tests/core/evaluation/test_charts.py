"""Charts show what they should, stay small, and have colours that colour-blind readers can distinguish."""

from __future__ import annotations

import datetime as dt
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation import charts
from dssm_assets.core.evaluation.charts import MODEL_COLOR, drawable, loss_curve_png, segment_png, trend_png
from dssm_assets.core.evaluation.labels import BASELINE_COLORS, SCORERS, TREND_SCOPES, color_of
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, trend_table
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA
from dssm_assets_tests.core.evaluation.worlds import total_row

MOST_BYTES = 80_000
# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009), severity 1.


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(png: bytes, color: str) -> int:
    """Returns how many pixels have about this colour; the palette moves colours a little."""
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(picture(png) - wanted).max(axis=2) <= 12).sum())


def trend_of(days: int, scorers: tuple[str, ...] = tuple(SCORERS), scopes: tuple[str, ...] = TREND_SCOPES) -> pa.Table:
    first, rng = dt.date(2025, 12, 20), np.random.default_rng(3)
    totals = []
    for day in range(days):
        rows = [
            total_row(scorer, scope, hit_rate=0.1 + 0.05 * place + float(rng.normal()) * 0.01)
            for place, scorer in enumerate(scorers)
            for scope in scopes
        ]
        totals.append(((first + dt.timedelta(days=day)).isoformat(), pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)))
    return trend_table(totals, 10)


@pytest.mark.parametrize("days", [1, 366])
def test_trend_charts_of_any_length_are_small_and_of_one_size(days: int) -> None:
    png = trend_png(trend_of(days), 10)
    assert png == trend_png(trend_of(days), 10)
    assert picture(png).shape == (400, 1170, 3)
    assert len(png) < MOST_BYTES
    assert b"tEXt" not in png


def test_trend_charts_show_every_line_and_the_band() -> None:
    png = trend_png(trend_of(12), 10)
    for color in (label.color for label in SCORERS.values()):
        assert near(png, color) > 150, color
    alone = trend_png(trend_of(12, scorers=("model",)), 10)
    assert all(near(alone, color) < 20 for color in BASELINE_COLORS[1:4])
    assert near(png, "#f7ddd8") > 3000  # the model's colour at 16% over white
    assert picture(trend_png(trend_of(3, scopes=("all",)), 10)).shape == (400, 490, 3)
    assert picture(trend_png(trend_of(3, scopes=("all", "unseen")), 10)).shape == (400, 950, 3)


def segments_of(values: int, label: str = "value") -> pa.Table:
    rows = [
        {
            "segment": "town", "value": f"{label} {place}", "users": 10, "hits": 3, "truth_count": 10, "hit_rate": 0.3,
            "ci_low": 0.2, "ci_high": 0.4,
        }
        for place in range(values)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA)


def test_segment_charts_have_a_line_per_value_and_stay_small() -> None:
    one, ten, sixty, many = (segment_png({"model": segments_of(count)}, 200) for count in (1, 10, charts.MAX_ROWS, 900))
    heights = [picture(png).shape[0] for png in (one, ten, sixty)]
    assert heights == [160, 385, 1635]  # 0.25 inch per value and for the heading, 1.1 around them, 100 pixels an inch
    assert picture(many).shape == picture(sixty).shape
    assert len(many) < MOST_BYTES
    assert many != sixty  # it says how many are not drawn
    assert near(ten, MODEL_COLOR) > 100
    both = segment_png({"merged": segments_of(10), "model": segments_of(10)}, 200)
    assert picture(both).shape == picture(ten).shape
    assert min(near(both, MODEL_COLOR), near(both, color_of("merged"))) > 100
    assert near(ten, color_of("merged")) == 0


@pytest.mark.parametrize("label", ["$x_1$ \\frac{", "a\nb", "北京", "", "x" * 500])
def test_any_text_is_drawn(label: str, recwarn: pytest.WarningsRecorder) -> None:
    assert len(segment_png({"model": segments_of(2, label)}, 200)) < MOST_BYTES
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


def test_labels_outside_the_font_name_their_row() -> None:
    assert drawable("Zürich", 0) == "Zürich"
    assert drawable("北京", 4) == "row 5 of the table"
    assert drawable("x" * 40, 0) == "x" * 27 + "…"


def test_validation_rates_add_a_panel_to_the_loss_curve() -> None:
    losses = [5.0 - 0.01 * step for step in range(200)]
    alone, both = picture(loss_curve_png(losses)), picture(loss_curve_png(losses, [0.1, 0.3, 0.2]))
    assert alone.shape[:2] == (380, 760)
    assert both.shape[:2] == (380, 950)
    assert (np.abs(both[:, 600:] - (0xCC, 0x33, 0x11)).sum(axis=2) < 40).sum() > 200  # the strong colour of the model
    assert len(loss_curve_png(losses, [0.1, 0.3, 0.2])) < 60_000
    other = picture(loss_curve_png(losses, [0.3, 0.2, 0.1]))
    differing = np.abs(both - other).sum(axis=2) > 100  # beyond what the palette rounds
    assert not differing[:, :560].any()
    assert differing[:, 600:].any()


@pytest.mark.parametrize(("losses", "rates"), [([], []), ([1.0, float("nan")], []), ([1.0], [float("inf")])])
def test_values_that_are_not_finite_are_refused(losses: list[float], rates: list[float]) -> None:
    with pytest.raises(InputError, match="loss curve"):
        loss_curve_png(losses, rates)
