"""The section platform: its bounds. That each key is used is shown where it is used (`dssm_assets_tests/defs`)."""

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets_tests import worlds


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trigger", "often"),
        ("schedule_at", "24:00"),
        ("schedule_at", "3:00"),
        ("owners", []),
        ("freshness_hours", 0),
        ("webhook_url", "ftp://host/x"),
        ("git_url", "http://host/x"),
        ("trainer_pool", "Big GPU"),
        ("landed_marker", ""),
    ],
)
def test_values_out_of_bounds_are_refused_by_their_key(key, value):
    with pytest.raises(ConfigError, match=rf"key platform\.{key}"):
        parse_config(worlds.merged(worlds.CONFIG, {"platform": {key: value}}))
