"""Evaluation without charts, for tests that do not look at them."""

from __future__ import annotations

import pytest

from dssm_assets.core.evaluation import charts


def leave_out_charts(patch: pytest.MonkeyPatch) -> None:
    """Has every chart be an empty picture. Charts are in no partition, and to draw them takes half of an evaluation."""
    patch.setattr(charts, "png_bytes", lambda figure: b"\x89PNG")
