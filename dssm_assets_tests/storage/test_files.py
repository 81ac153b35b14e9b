"""Parquet files of anybody's making: files, folders, URLs, and what is not one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.storage.files import TableWriter, read_parquet
from dssm_assets.storage.local_files import ScratchArrays, ScratchFile, write_atomic


def test_a_file_a_folder_and_a_url_are_read_alike(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1, 2, 3], "other": ["x", "y", "z"]})
    pq.write_table(table.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(table.slice(2), tmp_path / "b.pq")
    (tmp_path / "notes.txt").write_text("no data")
    assert read_parquet(str(tmp_path), ["user_id", "vector"], "users").to_pydict() == {"user_id": [1, 2, 3]}
    assert read_parquet(f"file://{tmp_path}/a.parquet", ["user_id"], "users").num_rows == 2
    with fsspec.open("memory://vectors/a.parquet", "wb") as handle:
        pq.write_table(table, handle)
    assert read_parquet("memory://vectors/a.parquet", ["other"], "users").column("other").to_pylist() == ["x", "y", "z"]
    assert read_parquet(str(tmp_path / "a.parquet"), ["none"], "users").column_names == ["user_id", "other"]


def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"users, .*none: expected a parquet file .* got no such file or folder"):
        read_parquet(str(tmp_path / "none"), ["user_id"], "users")
    with pytest.raises(InputError, match="got a folder without any"):
        read_parquet(str(tmp_path), ["user_id"], "users")
    (tmp_path / "fake.parquet").write_text("user_id,vector")
    with pytest.raises(SchemaError, match="readable parquet files of one schema"):
        read_parquet(str(tmp_path), ["user_id"], "users")
    (tmp_path / "fake.parquet").unlink()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match="of one schema"):
        read_parquet(str(tmp_path), ["user_id"], "users")


@pytest.mark.parametrize("name", ["out.parquet", "deeper/out.csv"])
def test_tables_are_appended(tmp_path: Path, name: str) -> None:
    with TableWriter(str(tmp_path / name)) as writer:
        writer.write(pa.table({"id": ["a,b"], "rate": [0.5]}))
        writer.write(pa.table({"id": ["c"], "rate": [1.0]}))
    if name.endswith(".csv"):
        assert (tmp_path / name).read_text() == '"id","rate"\n"a,b",0.5\n"c",1\n'
    else:
        assert pq.read_table(tmp_path / name).to_pydict() == {"id": ["a,b", "c"], "rate": [0.5, 1.0]}


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with TableWriter(str(tmp_path / "out.parquet")) as writer:
            writer.write(pa.table({"id": [1]}))
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"ends in \.parquet or \.pq, got another ending"):
        TableWriter("out.csv", has_lists=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a place that can be written"), TableWriter(f"{tmp_path}/file/out.csv") as writer:
        writer.write(pa.table({"id": [1]}))


def test_arrays_hold_what_is_written_and_lie_in_the_folder(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    first, second = make(3, np.int64), make(2, np.int32)
    first[:] = [5, -1, 7]
    second[:] = 9
    assert (first.tolist(), second.tolist()) == ([5, -1, 7], [9, 9])
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [8, 24]


def test_arrow_takes_an_array_without_copying_it(tmp_path: Path) -> None:
    array = ScratchArrays(tmp_path)(4, np.int64)
    column = pa.array(array)
    array[2] = 6
    assert column.to_pylist() == [0, 0, 6, 0]


def test_no_rows_take_no_file(tmp_path: Path) -> None:
    assert ScratchArrays(tmp_path)(0, np.int32).tolist() == []
    assert list(tmp_path.iterdir()) == []


def test_parts_become_one_array(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    joined = make.concat((np.array(part) for part in ([1, 2], [], [3])), np.int32)
    assert (joined.tolist(), joined.dtype) == ([1, 2, 3], np.int32)
    assert make.concat(iter([]), np.int32).tolist() == []


def test_an_array_or_its_beginning_is_opened_again(tmp_path: Path) -> None:
    array = ScratchArrays(tmp_path)(3, np.int64)
    array[:] = [4, 5, 6]
    assert ScratchFile.from_array(array[:2]).open().tolist() == [4, 5]
    assert ScratchFile.from_array(array[:0]).open().tolist() == []
    with pytest.raises(TypeError, match="an array of ScratchArrays, got ndarray"):
        ScratchFile.from_array(np.arange(3))


def test_a_file_is_written_into_a_new_folder_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.json"
    write_atomic(path, [b"one ", b"two"])
    assert path.read_bytes() == b"one two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]


def test_a_writer_that_fails_leaves_what_stood_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, [b"before"])

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, broken())
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
