"""Tables outside the store: parquet files, folders and URLs are read, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.storage.files import TableWriter, read_parquet


def test_read_parquet_reads_files_folders_and_urls(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1, 2, 3], "other": ["x", "y", "z"]})
    pq.write_table(table.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(table.slice(2), tmp_path / "b.pq")
    (tmp_path / "notes.txt").write_text("no data")
    assert read_parquet(str(tmp_path), ["user_id"], "users").to_pydict() == {"user_id": [1, 2, 3]}
    assert read_parquet(str(tmp_path), ["user_id", "vector"], "users").to_pydict() == {"user_id": [], "other": []}
    assert read_parquet(f"file://{tmp_path}/a.parquet", ["user_id"], "users").num_rows == 2
    with fsspec.open("memory://vectors/a.parquet", "wb") as handle:
        pq.write_table(table, handle)
    assert read_parquet("memory://vectors/a.parquet", ["other"], "users").column("other").to_pylist() == ["x", "y", "z"]
    assert read_parquet(str(tmp_path / "a.parquet"), ["none"], "users").column_names == ["user_id", "other"]


def test_read_parquet_names_the_location_that_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"users, .*none: expected a parquet file .* got no such file or folder"):
        read_parquet(str(tmp_path / "none"), ["user_id"], "users")
    with pytest.raises(InputError, match="got a folder without parquet files"):
        read_parquet(str(tmp_path), ["user_id"], "users")
    (tmp_path / "fake.parquet").write_text("user_id,vector")
    with pytest.raises(SchemaError, match="readable parquet files of one schema"):
        read_parquet(str(tmp_path), ["user_id"], "users")
    (tmp_path / "fake.parquet").unlink()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match="of one schema"):
        read_parquet(str(tmp_path), ["user_id"], "users")


@pytest.mark.parametrize("is_encoded", [False, True])
def test_read_parquet_refuses_ids_that_are_not_utf_8(tmp_path: Path, is_encoded: bool) -> None:
    ids = pa.Array.from_buffers(pa.string(), 2, pa.array([b"x", b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"user_id": ids.dictionary_encode() if is_encoded else ids}), tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match=r"truth, .*a.parquet, column user_id: expected text in UTF-8"):
        read_parquet(str(tmp_path), ["user_id"], "truth")


@pytest.mark.parametrize("name", ["out.parquet", "deeper/out.csv"])
def test_table_writer_appends_tables(tmp_path: Path, name: str) -> None:
    with TableWriter(str(tmp_path / name)) as writer:
        writer.write(pa.table({"id": ["a,b"], "rate": [0.5]}))
        writer.write(pa.table({"id": ["c"], "rate": [1.0]}))
    if name.endswith(".csv"):
        assert (tmp_path / name).read_text() == '"id","rate"\n"a,b",0.5\n"c",1\n'
    else:
        assert pq.read_table(tmp_path / name).to_pydict() == {"id": ["a,b", "c"], "rate": [0.5, 1.0]}


def test_table_writer_removes_its_file_after_a_failure(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="a place that can be used"), TableWriter(f"{tmp_path}/file/out.csv") as writer:
        writer.write(pa.table({"id": [1]}))
