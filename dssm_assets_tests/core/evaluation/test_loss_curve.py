"""The picture of a training: one panel, or two with validation days."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.charts import loss_curve_png

LOSSES = [5.0 - 0.01 * step for step in range(200)]


def _pixels(png: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _ink(part: np.ndarray) -> int:  # type: ignore[type-arg]
    """Returns how many pixels have the strong colour of the model."""
    return int((np.abs(part.astype(int) - (0xCC, 0x33, 0x11)).sum(axis=2) < 40).sum())


def test_validation_rates_add_a_panel_to_the_loss_curve() -> None:
    alone, both = _pixels(loss_curve_png(LOSSES)), _pixels(loss_curve_png(LOSSES, [0.1, 0.3, 0.2]))
    assert alone.shape[:2] == (380, 760)
    assert both.shape[:2] == (380, 950)
    assert _ink(both[:, 600:]) > 200
    assert len(loss_curve_png(LOSSES, [0.1, 0.3, 0.2])) < 60_000


def test_loss_curve_changes_with_the_hit_rates() -> None:
    rising, falling = (_pixels(loss_curve_png(LOSSES, rates)) for rates in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]))
    differing = np.abs(rising.astype(int) - falling.astype(int)).sum(axis=2) > 100  # beyond what the palette rounds
    assert not differing[:, :560].any()
    assert differing[:, 600:].sum() > 100
    assert loss_curve_png(LOSSES, [0.1, 0.3]) == loss_curve_png(LOSSES, [0.1, 0.3])


@pytest.mark.parametrize(("losses", "rates"), [([], []), ([1.0, float("nan")], []), ([1.0], [float("inf")])])
def test_values_that_are_not_finite_are_refused(losses: list[float], rates: list[float]) -> None:
    with pytest.raises(InputError, match="loss curve"):
        loss_curve_png(losses, rates)
