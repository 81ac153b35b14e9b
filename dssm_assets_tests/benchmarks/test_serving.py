"""The serving benchmark runs and prints its report; times are not asserted."""

import pytest

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets_tests.benchmarks import serving


@pytest.mark.parametrize("kind", [IndexKind.AUTO, IndexKind.IVF])
def test_serving_report_has_a_line_per_measurement(quick, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(serving, "USERS", 1000)
    lines = serving.report(4000, kind, 0.95, 0.05, 2, tmp_path)
    rows = [line.rsplit(maxsplit=6)[0].strip() for line in lines[4:10]]
    assert rows == [
        "GET /recall",
        "POST /recall with features",
        "/recall/batch of 100, JSON",
        "/recall/batch of 100, Arrow",
        "GET /recall, 1 connection",
        "POST with features, 1 connection",
    ]
    assert "Flat" in lines[0] if kind is IndexKind.AUTO else "IVF, cells" in lines[0]
