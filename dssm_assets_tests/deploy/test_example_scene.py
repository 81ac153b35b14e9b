"""The example scene of deploy/config is valid."""

from __future__ import annotations

from pathlib import Path

from dssm_assets.core.config.engines import Trigger
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.deploy.compose_file import DEPLOY


def test_example_scene_loads_and_stores_tables_on_the_object_store(tmp_path: Path) -> None:
    loaded = load_config(DEPLOY / "config" / "config.yaml", tmp_path)
    tables = loaded.config.tables
    assert loaded.root == "s3://dssm/tables"
    assert all(table.uri.startswith("s3://dssm/source/") for table in (tables.user, tables.item, tables.behavior))
    assert loaded.config.platform.trigger is Trigger.SCHEDULE, "off by default, on in a deployment"
    names = [feature.name for feature in parse_fg(loaded.fg, read_file=loaded.read_fg_file).features]
    assert "item_click_count_7d" in names
    assert {7, 30} <= set(loaded.config.raw_features.statistic_days), "the windows that fg.json counts over"
