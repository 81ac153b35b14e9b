"""Steps and owners of every asset."""

import importlib

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_table import all_rows
from dssm_assets_tests import worlds


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_every_asset_has_its_step(row):
    assert callable(getattr(importlib.import_module(f"dssm_assets.{row.step.module}"), row.step.name))


def test_owners_are_the_configured_ones(tmp_path):
    owners = ["team:recall", "someone@example.org"]
    defs = build_definitions(worlds.write_config(tmp_path, {"platform": {"owners": owners}}))
    assert {tuple(spec.owners) for spec in defs.resolve_all_asset_specs()} == {tuple(owners)}


@pytest.mark.parametrize("owner", ["recall", "team:", "a b@c.d", "@x.y"])
def test_malformed_owner_is_refused(owner):
    with pytest.raises(ConfigError, match=r"platform\.owners\.0: .* String should match pattern '\^\(team:"):
        parse_config(worlds.merged(worlds.CONFIG, {"platform": {"owners": [owner]}}))
