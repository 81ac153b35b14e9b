"""The code location loads no heavy library, so its import is little slower than Dagster's."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import import_time

HEAVY = ("torch", "faiss", "pandas", "numpy", "scipy", "pyarrow", "ibis", "duckdb", "fsspec", "s3fs", "matplotlib", "rich")


def test_code_location_loads_no_heavy_library() -> None:
    listing = f"import sys; {import_time.LOCATION}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert import_time.run(listing).strip() == "[]"


def test_resolving_the_graph_loads_no_heavy_library() -> None:
    code = (
        "import sys; from dssm_assets.definitions import defs; repository = defs().get_repository_def(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert import_time.run(code).strip() == "[]"


def test_help_loads_no_library() -> None:
    code = (
        "import sys; from dssm_assets.cli import build_parser; build_parser().format_help(); "
        f"print([name for name in {(*HEAVY, 'dagster', 'pydantic')!r} if name in sys.modules])"
    )
    assert import_time.run(code).strip() == "[]"


@pytest.mark.slow
def test_code_location_imports_in_less_than_one_and_a_half_times_dagster() -> None:
    assert import_time.measure_ratio(rounds=7) < 1.5
