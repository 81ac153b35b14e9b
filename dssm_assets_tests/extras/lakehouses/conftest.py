"""A table of each format."""

from pathlib import Path

import pytest

from dssm_assets_tests.extras.lakehouses.lakes import Lake, open_lake


@pytest.fixture(params=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """Returns an empty table of each format."""
    return open_lake(request.param, tmp_path)
