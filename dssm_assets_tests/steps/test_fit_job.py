"""States of a fit in files: one file, or a part per process that are valid only together; samples that are copied for a fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dssm_assets.core.training.distributed.process_group import ProcessGroup
from dssm_assets.steps.fit_job import StateFiles
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets_tests.steps.fit_jobs import run, write_job

CONCAT = ScratchArrays.concat


@pytest.mark.parametrize("free", [1 << 40, 0])
def test_a_fit_from_records_in_a_scratch_folder_gives_the_same_weights_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    job, scratch = write_job(tmp_path / "job", {}, {}), tmp_path / "scratch"
    copied: list[str] = []

    def concat(self: ScratchArrays, parts: Iterable[np.ndarray], kind: np.dtype) -> np.ndarray:
        copied.append(str(kind))
        return CONCAT(self, parts, kind)

    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(ScratchArrays, "concat", concat)
    assert run(job, scratch).files == run(job).files
    assert list(scratch.iterdir()) == []
    assert bool(copied) is bool(free)


class FakeGroup(ProcessGroup):
    """One of two processes; the test runs both, one after the other."""

    def is_same(self, value: float) -> bool:
        return not hasattr(self, "_other") or value == self._other

    def set_other(self, other: float) -> None:
        self._other = other

    def wait(self) -> None:
        pass


def _both(path: Path) -> tuple[StateFiles, StateFiles]:
    first, second = (StateFiles(path, FakeGroup(rank, 2), is_sharded=True) for rank in (0, 1))
    return first, second


def test_one_process_stores_one_file(tmp_path: Path) -> None:
    states = StateFiles(tmp_path / "day.state")
    assert states.read() is None
    states.write([b"a", b"b"])
    assert StateFiles(tmp_path / "day.state").read() == b"ab"
    states.remove()
    assert list(tmp_path.iterdir()) == []


def test_parts_are_valid_once_all_are_written(tmp_path: Path) -> None:
    path = tmp_path / "day.state"
    second, first = reversed(_both(path))
    for text in (b"1", b"2"):
        second.write([b"second " + text])  # the first names the parts once all are written
        first.write([b"first " + text])
    second.write([b"second 3"])  # the first is killed here
    assert [states.read() for states in _both(path)] == [b"first 2", b"second 2"]
    first.remove()
    assert list(tmp_path.iterdir()) == []


def test_processes_that_see_different_files_start_again(tmp_path: Path) -> None:
    path, ranks = tmp_path / "day.state", FakeGroup(0, 2)
    for states in reversed(_both(path)):
        states.write([b"part"])
    assert StateFiles(path, ranks, is_sharded=True).read() == b"part"
    ranks.set_other(0.0)  # the other machine has no such file
    assert StateFiles(path, ranks, is_sharded=True).read() is None
