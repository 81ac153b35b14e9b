"""The code location loads nothing heavy, and so takes little longer than Dagster itself."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import import_time

HEAVY = ("torch", "faiss", "pandas", "numpy", "scipy", "pyarrow", "ibis", "duckdb", "fsspec", "s3fs", "matplotlib", "rich")


def test_the_code_location_loads_nothing_that_computes() -> None:
    listing = f"import dssm_assets.definitions, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert import_time.run(listing).strip() == "[]"


def test_a_process_that_resolves_the_graph_loads_nothing_that_computes() -> None:
    code = (
        "import dssm_assets.definitions as location, sys; repository = location.defs.get_repository_def(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert import_time.run(code).strip() == "[]"


@pytest.mark.slow
def test_the_code_location_takes_less_than_one_and_a_half_times_dagster() -> None:
    assert import_time.measure(rounds=7).ratio < 1.5
