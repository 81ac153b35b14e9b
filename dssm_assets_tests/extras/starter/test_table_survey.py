"""Places and files that cannot be used are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.extras.starter.table_survey import survey_table
from dssm_assets_tests.storage.test_locations import BROKEN_CSV, PLACES


@pytest.mark.parametrize("uri", PLACES, ids=ascii)
def test_unusable_place_is_an_input_error(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        survey_table(uri, "user_table", is_log=False)
    assert all(fault.remedy for fault in caught.value.faults)


@BROKEN_CSV
def test_broken_csv_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=name):
        survey_table(str(path), "user_table", is_log=False)
