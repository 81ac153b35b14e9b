"""Places and files that cannot be used are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.extras.starter.table_survey import count_unnamed, survey_table
from dssm_assets.storage.sources.text_files import find_csv_shape
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
        ("/", "a place that can be used, got the root folder: name the table's own folder"),
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


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("user,item,time\n1,2,3\n", 0),
        ("1,2,3\n4,5,6\n", 3),
        ("u1\t2012-04-03T18:00:09Z\ti1\n", 3),
        ("u1;Tue Apr 03 18:00:09 +0000 2012\n", 2),
        ("1::Toy Story (1995)::Animation\n", 3),
        ('"u1","4,5"\n', 2),
        (",0,1,2\n0,a,b,c\n", 0),
        (",user,item\n0,a,b\n", 0),
        ("item,2019,2020\n17,3,5\n18,4,6\n", 0),
        ("u1,2019\nu2,2020\n", 2),
        ("2014-04-07T10:51:09.277Z,S\n2014-04-07T10:54:09.868Z,0\n", 2),
        ("user_id,2019,2020\nu1,3,4\nu2,5,6\n", 0),
        ("customer;2019-01;2019-02\n7;3;4\n8;5;6\n", 0),
        ("user_id,2019-01-01\nu1,3\nu2,5\n", 0),
        ("1,\\N,3\n2,4,5\n3,7,6\n", 3),
        ("1,NA,3\n2,4,5\n3,7,6\n", 3),
        ('1,"Weird Al" Yankovic\n2,x\n', 2),
        ("1,android,3\n2,ios,4\n", 3),
        ('1,"' + "x" * 200_000 + '"\n', 0),
    ],
)
def test_a_first_line_with_a_number_or_a_time_is_no_header(head: str, expected: int) -> None:
    assert count_unnamed(head, find_csv_shape(head)) == expected
