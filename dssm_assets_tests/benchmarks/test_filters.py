"""The benchmark of filters runs and prints its report; times are not asserted."""

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets_tests.benchmarks import filters, serving


def test_report_has_a_line_per_fraction(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "USERS", 1000)
    monkeypatch.setattr(filters, "USERS", 1000)
    monkeypatch.setattr("dssm_assets.serving.recall_engine.SCANNED_ITEMS", 0)
    *_, whole, half, few, rare = filters.report(4000, IndexKind.IVF, 20, tmp_path)
    assert [line.split()[0] for line in (whole, half, few, rare)] == ["100.0%", "50.0%", "5.0%", "0.1%"]
    assert all(float(line.split()[2]) > 0.9 for line in (whole, half, few, rare))
