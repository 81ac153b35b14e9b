"""The search benchmark on tiny data: it runs and fills its table; times are not asserted."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import exact_search


def test_exact_search_table_has_a_line_per_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    exact_search.main(["--users", "50", "--items", "300", "--dims", "8", "--k", "20"])
    head, _, names, *lines = capsys.readouterr().out.splitlines()
    assert head == "50 users, 300 items, 8 dimensions, the 20 best; 1 threads"
    assert names.split()[-2:] == ["x", "faiss"]
    assert [line.split()[0] for line in lines] == ["torch", "faiss", "ours", "evaluation"]
