"""The benchmark of writing vectors on tiny data, in this process: it runs and fills its table; times are not asserted."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import vectors


def test_both_ways_are_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "run_apart", lambda work, **arguments: work(**arguments))
    vectors.main(["--items", "600", "--dims", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines] == ["way", "in parts", "whole"]
    assert all(float(line[12:].split()[0].replace(",", "")) > 0 for line in lines[1:])
