"""The benchmark of index kinds on tiny data."""

from __future__ import annotations

from dssm_assets_tests.benchmarks import index_kinds


def test_every_index_kind_is_measured_and_reaches_its_recall() -> None:
    rows = index_kinds.measure(1500)
    assert [row.kind for row in rows] == ["Flat", "HNSW", "IVF"]
    assert all(row.lowest_recall >= 0.98 and row.queries_per_s > 0 for row in rows)
