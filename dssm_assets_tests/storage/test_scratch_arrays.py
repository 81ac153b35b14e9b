"""Arrays in files behave as arrays in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.storage.scratch_arrays import ScratchArrays, ScratchFile


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
    joined = make.joined((np.array(part) for part in ([1, 2], [], [3])), np.int32)
    assert (joined.tolist(), joined.dtype) == ([1, 2, 3], np.int32)
    assert make.joined(iter([]), np.int32).tolist() == []


def test_an_array_or_its_beginning_is_opened_again(tmp_path: Path) -> None:
    array = ScratchArrays(tmp_path)(3, np.int64)
    array[:] = [4, 5, 6]
    assert ScratchFile.of(array[:2]).open().tolist() == [4, 5]
    assert ScratchFile.of(array[:0]).open().tolist() == []
    with pytest.raises(TypeError, match="an array of ScratchArrays, got ndarray"):
        ScratchFile.of(np.arange(3))
