"""The serving benchmark runs and prints its report; times are not asserted."""

import pytest

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets_tests.benchmarks import serving


@pytest.mark.parametrize("kind", [IndexKind.AUTO, IndexKind.IVF])
def test_serving_report_has_a_line_per_measurement(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(serving, "USERS", 1000)
    lines = serving.report(4000, kind, 0.05, [1, 2], tmp_path)
    names = [line[:34].strip() for line in lines]
    assert names[4:12] == [
        "engine, stored user",
        "engine, similar items",
        "engine, features",
        "user tower from features alone",
        "GET /recall, 1 connections",
        "GET /recall, 2 connections",
        "POST /recall features, 1 connectio",
        "POST /recall features, 2 connectio",
    ]
    assert "Flat" in lines[0] if kind is IndexKind.AUTO else "IVF, cells" in lines[0]
