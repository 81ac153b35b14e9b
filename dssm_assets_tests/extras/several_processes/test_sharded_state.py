"""Parts of a state, a file per process, are valid only together."""

from __future__ import annotations

from pathlib import Path

from dssm_assets.core.training.compute import Ranks
from dssm_assets.extras.several_processes.sharded_state import ShardedState
from dssm_assets.steps.fit_job import remove_state


class FakeGroup(Ranks):
    """One of two processes; the test runs both, one after the other."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def is_same(self, value: float) -> bool:
        return not hasattr(self, "_other") or value == self._other

    def set_other(self, other: float) -> None:
        self._other = other

    def wait(self) -> None:
        pass


def _both(path: Path) -> tuple[ShardedState, ShardedState]:
    first, second = (ShardedState(path, FakeGroup(rank, 2)) for rank in (0, 1))
    return first, second


def test_parts_are_valid_once_all_are_written(tmp_path: Path) -> None:
    path = tmp_path / "day.state"
    second, first = reversed(_both(path))
    for text in (b"1", b"2"):
        second.write([b"second " + text])  # the first names the parts once all are written
        first.write([b"first " + text])
    second.write([b"second 3"])  # the first is killed here
    assert [states.read() for states in _both(path)] == [b"first 2", b"second 2"]
    remove_state(path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_see_different_files_start_again(tmp_path: Path) -> None:
    path, ranks = tmp_path / "day.state", FakeGroup(0, 2)
    for states in reversed(_both(path)):
        states.write([b"part"])
    assert ShardedState(path, ranks).read() == b"part"
    ranks.set_other(0.0)  # the other machine has no such file
    assert ShardedState(path, ranks).read() is None
