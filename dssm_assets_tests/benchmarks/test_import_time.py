"""The code location and Dagster's registry of components load no heavy library, a step none that it does not need."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import dssm_assets
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


def test_registry_of_components_loads_no_heavy_library() -> None:
    # Every process of a project that loads a defs folder looks at all names of the module that the entry point names.
    project = tomllib.loads((Path(dssm_assets.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((_, module),) = project["entry-points"]["dagster_dg_cli.registry_modules"].items()
    code = (
        f"import sys, {module} as found; print([name for name in dir(found) if hasattr(getattr(found, name), '__dg_package_entry__')], "
        f"[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert import_time.run(code).strip() == "['DssmRecall'] []"


def test_a_step_that_queries_no_table_loads_no_query_engine() -> None:
    code = "import sys, dssm_assets.steps.feature_config; print([name for name in ('ibis', 'sqlglot', 'duckdb') if name in sys.modules])"
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
