"""Places and files that cannot be used are refused."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("/", "a place that can be used, got the folder of all files: name the table's own"),
        ("zip://x::clicks.csv", "a place that can be used, got File is not a zip file"),
        ("tar://x::clicks.csv", "a place that can be used, got truncated header"),
        ("pipe", "a text file, got .*pipe is not a regular file"),
    ],
)
def test_what_is_no_table_is_told_at_once(uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").write_text("user_id\n1\n")
    os.mkfifo("pipe")
    with pytest.raises(InputError, match=rf"user_table, {uri}: expected {said}.* To fix: "):
        survey_table(uri, "user_table", is_log=False)


@BROKEN_CSV
def test_broken_csv_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=name):
        survey_table(str(path), "user_table", is_log=False)
