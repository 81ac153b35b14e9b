"""Code links and owners of every asset."""

import importlib
import inspect
from pathlib import Path

import dagster as dg
import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_table import all_rows
from dssm_assets_tests import worlds


def references(defs):
    found = {}
    for spec in defs.resolve_all_asset_specs():
        (found[spec.key.to_user_string()],) = spec.metadata["dagster/code_references"].code_references
    return found


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_code_link_leads_to_the_step_of_the_asset(row):
    made = inspect.unwrap(getattr(importlib.import_module(f"dssm_assets.{row.step.module}"), row.step.name))
    assert Path(inspect.getsourcefile(made)) == row.step.file
    lines, first = inspect.getsourcelines(made)  # from the decorator on
    assert first + next(number for number, line in enumerate(lines) if line.startswith("def ")) == row.step.line


def test_code_links_are_lines_of_local_files(tmp_path):
    link = references(build_definitions(worlds.write_config(tmp_path)))["total_hit_rate"]
    assert isinstance(link, dg.LocalFileCodeReference)
    line = Path(link.file_path).read_text(encoding="utf-8").splitlines()[link.line_number - 1]
    assert line.startswith("def total_hit_rate(")


def test_owners_are_the_configured_ones(tmp_path):
    owners = ["team:recall", "someone@example.org"]
    defs = build_definitions(worlds.write_config(tmp_path, {"platform": {"owners": owners}}))
    assert {tuple(spec.owners) for spec in defs.resolve_all_asset_specs()} == {tuple(owners)}


@pytest.mark.parametrize("owner", ["recall", "team:", "a b@c.d", "@x.y"])
def test_malformed_owner_is_refused(owner):
    with pytest.raises(ConfigError, match=r"platform\.owners\.0: .* String should match pattern '\^\(team:"):
        parse_config(worlds.merged(worlds.CONFIG, {"platform": {"owners": [owner]}}))
