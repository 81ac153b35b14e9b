"""The code location and Dagster's registry of components load no heavy library, a step none that it does not need."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import dssm_assets
from dssm_assets_tests.benchmarks import import_time

HEAVY = ("torch", "faiss", "pandas", "numpy", "scipy", "pyarrow", "ibis", "duckdb", "fsspec", "s3fs", "matplotlib", "rich")


def test_registry_code_location_and_a_step_load_no_library_that_they_do_not_need() -> None:
    """One after the other in one process: a library that an earlier one loads is found at the later ones, too."""
    # Every process of a project that loads a defs folder looks at all names of the module that the entry point names.
    project = tomllib.loads((Path(dssm_assets.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((_, module),) = project["entry-points"]["dagster_dg_cli.registry_modules"].items()
    code = f"""
import sys, {module} as found
print([name for name in dir(found) if hasattr(getattr(found, name), "__dg_package_entry__")], *sys.modules)
{import_time.LOCATION}
from dssm_assets.definitions import defs
defs().get_repository_def()
print(*sys.modules)
import dssm_assets.steps.feature_config
print(*sys.modules)
"""
    registry, location, step = (set(line.split()) for line in import_time.run(code).splitlines())
    assert "['DssmRecall']" in registry
    assert not location & set(HEAVY)
    assert not step & {"ibis", "sqlglot", "duckdb"}


def test_help_loads_no_library() -> None:
    code = (
        "import sys; from dssm_assets.cli import build_parser; build_parser().format_help(); "
        f"print([name for name in {(*HEAVY, 'dagster', 'pydantic')!r} if name in sys.modules])"
    )
    assert import_time.run(code).strip() == "[]"


@pytest.mark.slow
def test_code_location_imports_in_less_than_one_and_a_half_times_dagster() -> None:
    assert import_time.measure_ratio(rounds=7) < 1.5
