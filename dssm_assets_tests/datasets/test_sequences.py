"""Text files of sequences: what is read, in which types, and every bad line at once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.datasets import sequences
from dssm_assets.datasets.sequences import Sequences, read_sequences
from dssm_assets.datasets.source_tables import DatasetMissingError


def _file(folder: Path, content: bytes | str, name: str = "data.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _rows(found: Sequences) -> dict[object, list[object]]:
    items, offsets = found.items.to_pylist(), found.offsets.tolist()
    return {user: items[offsets[u] : offsets[u + 1]] for u, user in enumerate(found.users.to_pylist())}


def test_spaces_tabs_and_line_ends(tmp_path: Path) -> None:
    (found,) = read_sequences(_file(tmp_path, b"\xef\xbb\xbf1 17 4 17\r\n3\t9  4 \r\n2\n\n\n"))
    assert _rows(found) == {1: [17, 4, 17], 3: [9, 4], 2: []}
    assert found.users.type == found.items.type == pa.int64()


def test_ids_are_texts_if_one_is_not_a_plain_number(tmp_path: Path) -> None:
    (found,) = read_sequences(_file(tmp_path, "1 10 20\n2 30\n3 007 40\n"))
    assert found.users.type == pa.int64()
    assert _rows(found) == {1: ["10", "20"], 2: ["30"], 3: ["007", "40"]}


def test_every_bad_line_of_every_file_is_named(tmp_path: Path) -> None:
    first = _file(tmp_path, b"1 5\n\n2 \xff\n1 6\n", "a.txt")
    second = _file(tmp_path, "7\n8\n", "b.txt")
    with pytest.raises(SchemaError) as caught:
        read_sequences(first, second)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 faults:"
    assert "a.txt, line       2: expected a user and its items, separated by spaces, got an empty line" in lines[1]
    assert "a.txt, line       3: expected UTF-8 text, got other bytes" in lines[2]
    assert "a.txt, line       4: expected one line per user, got user 1 of line 1 again" in lines[3]
    assert "b.txt: expected lines of a user and its items, separated by spaces, got 2 lines without items" in lines[4]


def test_faults_beyond_the_most_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "MAX_FAULTS", 2)
    with pytest.raises(SchemaError) as caught:
        read_sequences(_file(tmp_path, "1 5\n" + "\n" * 4 + "1 6\n" * 4))
    # 4 empty lines, the first 2 named, and 4 lines of user 1 again.
    assert len(caught.value.faults) == 3
    assert "6 more faults" in str(caught.value)


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissingError, match=r"(?s)train\.txt.*test\.txt|test\.txt.*train\.txt"):
        read_sequences(tmp_path / "train.txt", tmp_path / "test.txt")
