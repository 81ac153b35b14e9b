"""`dssm-assets bench`: one JSON object, or a table, with the requested number of threads."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import pytest

from dssm_assets.commands import bench

MAIN = "import sys; from dssm_assets.cli import main; sys.exit(main())"
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
    done = subprocess.run([sys.executable, "-c", MAIN, "bench", *TINY, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["sizes"]["rows"] == 300
    assert found["limits"]["gflops"] > 0
    assert found["device"] == "cpu"
    assert [rate["unit"] for rate in found["rates"]].count("queries") == 2
    assert all(rate["limit_frac"] == pytest.approx(rate["per_s"] / rate["limit_per_s"]) for rate in found["rates"])


def test_table_names_every_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the command sets variables of its process
    monkeypatch.setenv("COLUMNS", "120")
    parser = argparse.ArgumentParser()
    bench.add_command(parser.add_subparsers())
    parsed = parser.parse_args(["bench", *TINY])
    assert parsed.command(parsed) == 0
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
