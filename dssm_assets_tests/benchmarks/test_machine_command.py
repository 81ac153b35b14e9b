"""The benchmark of this machine: one JSON object, or a table, with the requested number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dssm_assets_tests.benchmarks.machine import __main__ as bench

MODULE = "dssm_assets_tests.benchmarks.machine"
TINY = [
    "--rows",
    "300",
    "--samples",
    "300",
    "--users",
    "40",
    "--items",
    "60",
    "--corpus",
    "200",
    "--queries",
    "10",
    "--dims",
    "8",
    "-k",
    "5",
    "--index",
    "flat",
]


def test_json_output_is_a_single_object() -> None:
    """In a process of its own, because threads are set before NumPy is imported."""
    done = subprocess.run([sys.executable, "-m", MODULE, *TINY, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["sizes"]["rows"] == 300
    assert found["limits"]["gflops"] > 0
    assert found["device"] == "cpu"
    assert [rate["unit"] for rate in found["rates"]].count("queries") == 2
    assert all(rate["limit_frac"] == pytest.approx(rate["per_s"] / rate["limit_per_s"]) for rate in found["rates"])


def test_table_names_every_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the command sets variables of its process
    monkeypatch.setenv("COLUMNS", "120")
    bench.main(TINY)
    printed = capsys.readouterr().out
    for part in (
        "feature generation, hashes",
        "training",
        "user vectors",
        "exact search",
        "index search",
        "matrix product",
        "on the CPU",
    ):
        assert part in printed
