"""Rows that nobody may read, without the extra that knows whose they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets import installed_extras
from dssm_assets.core.errors import ConfigError
from dssm_assets.storage.partitions import PartitionStore


def test_a_list_that_no_extra_reads_stops_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_extras, "find_extras", dict)
    assert PartitionStore(str(tmp_path)).find("behavior", "2024-01-01") is None
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "forgotten.json").write_text('{"hashes": ["0123456789abcdef"]}')
    with pytest.raises(ConfigError, match="the extra retention"):
        PartitionStore(str(tmp_path)).find("behavior", "2024-01-01")
