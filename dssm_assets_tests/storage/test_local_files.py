"""Local files: mapped arrays, handles of them for another process, atomic replacement."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dssm_assets.storage.local_files import ScratchArrays, ScratchFile, write_atomic


def test_scratch_arrays_keep_values_in_files_of_the_folder(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    first, second = make(3, np.int64), make(2, np.int32)
    first[:] = [5, -1, 7]
    second[:] = 9
    assert (first.tolist(), second.tolist()) == ([5, -1, 7], [9, 9])
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [8, 24]


def test_an_empty_scratch_array_has_no_file(tmp_path: Path) -> None:
    assert ScratchArrays(tmp_path)(0, np.int32).tolist() == []
    assert list(tmp_path.iterdir()) == []


def test_concat_returns_one_array(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    whole = make.concat((np.array(part) for part in ([1, 2], [], [3])), np.int32)
    assert (whole.tolist(), whole.dtype) == ([1, 2, 3], np.int32)
    assert make.concat(iter([]), np.int32).tolist() == []


def test_scratch_file_opens_an_array_or_a_prefix_of_it(tmp_path: Path) -> None:
    array = ScratchArrays(tmp_path)(3, np.int64)
    array[:] = [4, 5, 6]
    assert ScratchFile.from_array(array[:2]).open().tolist() == [4, 5]
    assert ScratchFile.from_array(array[:0]).open().tolist() == []
    with pytest.raises(TypeError, match="an array of ScratchArrays, got ndarray"):
        ScratchFile.from_array(np.arange(3))


def test_write_atomic_creates_the_folder_and_a_file_that_all_can_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.json"
    write_atomic(path, [b"one ", b"two"])
    assert path.read_bytes() == b"one two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]


def test_write_atomic_takes_a_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic("day.config", [b"x"])
    write_atomic(Path("day.config"), [b"y"])
    assert (tmp_path / "day.config").read_bytes() == b"y"


def test_write_atomic_leaves_no_piece_of_a_file_and_readers_what_they_have_opened(tmp_path: Path) -> None:
    path, limits = tmp_path / "part.parquet", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, [bytes(8192)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [], "half of it had been written"
    write_atomic(path, [b"ha"])
    with path.open("rb") as opened:
        write_atomic(path, [memoryview(b"half and whole")])
        assert (opened.read(), path.read_bytes()) == (b"ha", b"half and whole")


def test_write_atomic_leaves_the_existing_file_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, [b"before"])

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, broken())
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
