"""Extras: the registry finds them, and the spine works without any of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dssm_assets
from dssm_assets.core.errors import ConfigError
from dssm_assets.defs.asset_table import ASSET_TABLE
from dssm_assets.installed_extras import find_extras, load_all, load_extra

PACKAGE, TESTS = Path(dssm_assets.__file__).parent, Path(__file__).parent
WITHOUT = """
from dssm_assets.cli import build_parser
from dssm_assets.definitions import defs
print(len(defs().resolve_asset_graph().get_all_asset_keys()))
print(build_parser().format_help())
"""


def run_without(folder: Path, names: list[str]) -> str:
    """Returns what a copy of the package prints that lacks some extras."""
    shutil.copytree(PACKAGE, folder / "dssm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    for name in names:
        shutil.rmtree(folder / "dssm_assets" / "extras" / name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_folder_is_in_the_table() -> None:
    assert {path.parent.name for path in (PACKAGE / "extras").glob("*/__init__.py")} == set(find_extras())


def test_every_module_that_an_extra_names_can_be_imported() -> None:
    assert all(callable(module.add_command) for module in load_all("command"))
    assert all(hasattr(module, "ROWS") for module in load_all("rows"))
    assert all(callable(module.build) for module in load_all("definitions"))
    assert all(callable(module.settings_form) for module in load_all("forms"))
    assert all(callable(module.open_run) for module in load_all("runs"))
    assert all(callable(module.on_run_start) for module in load_all("run_start"))
    assert all(callable(module.asset_attributes) for module in load_all("attributes"))
    assert all(callable(module.on_materialized) for module in load_all("materialized"))
    assert all(callable(module.on_cleaned) for module in load_all("cleaned"))
    assert all(callable(module.list_unreached) for module in load_all("unreached"))
    assert all(callable(module.on_served) for module in load_all("served"))


def test_without_any_extra_the_spine_is_there(tmp_path: Path) -> None:
    printed = run_without(tmp_path, list(find_extras()))
    count, _, usage = printed.partition("\n")
    assert int(count) == sum(map(len, ASSET_TABLE.values()))
    assert all(command in usage for command in ("demo", "materialize", "recall", "serve", "publish"))
    assert all(command not in usage for command in ("init", "experiment", "cleanup", "import-config"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(find_extras()))
def test_each_extra_can_be_deleted(tmp_path: Path, name: str) -> None:
    run_without(tmp_path, [name])


def test_an_extra_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="the extra nothing, got only als, "):
        load_extra("nothing", "command")


def test_tests_of_an_extra_are_deleted_with_it() -> None:
    """Other tests import no extra, and an extra's tests no other one; benchmarks and what a test skips without are left out."""
    for path in sorted(TESTS.rglob("*.py")):
        inside = path.relative_to(TESTS).parts
        own = inside[1] if inside[0] == "extras" else ""
        imported = re.findall(r"^\s*(?:from|import) dssm_assets(?:_tests)?\.extras\.(\w+)", path.read_text(), re.MULTILINE)
        assert inside[0] == "benchmarks" or set(imported) <= {own}, path
