"""States of a fit in files: one, or a part per process that count only together."""

from __future__ import annotations

from pathlib import Path

from dssm_assets.core.training.distributed.ranks import Ranks
from dssm_assets.steps.fit_job import FitStates


class Together(Ranks):
    """One of two processes in a test that plays both, one after the other."""

    def is_same(self, value: float) -> bool:
        return not hasattr(self, "_other") or value == self._other

    def sees(self, other: float) -> None:
        object.__setattr__(self, "_other", other)

    def wait(self) -> None:
        pass


def _both(path: Path) -> tuple[FitStates, FitStates]:
    first, second = (FitStates(path, Together(rank, 2), is_dealt=True) for rank in (0, 1))
    return first, second


def test_one_process_keeps_one_file(tmp_path: Path) -> None:
    states = FitStates(tmp_path / "day.state")
    assert states.saved() is None
    states.save([b"a", b"b"])
    assert FitStates(tmp_path / "day.state").saved() == b"ab"
    states.forget()
    assert list(tmp_path.iterdir()) == []


def test_parts_count_once_all_are_there(tmp_path: Path) -> None:
    path = tmp_path / "day.state"
    second, first = reversed(_both(path))
    for text in (b"1", b"2"):
        second.save([b"second " + text])  # the first names the parts, after all have come
        first.save([b"first " + text])
    second.save([b"second 3"])  # and here the first is killed
    assert [states.saved() for states in _both(path)] == [b"first 2", b"second 2"]
    first.forget()
    assert list(tmp_path.iterdir()) == []


def test_where_processes_do_not_see_the_same_all_begin_anew(tmp_path: Path) -> None:
    path, ranks = tmp_path / "day.state", Together(0, 2)
    for states in reversed(_both(path)):
        states.save([b"part"])
    assert FitStates(path, ranks, is_dealt=True).saved() == b"part"
    ranks.sees(0.0)  # the other machine has no such file
    assert FitStates(path, ranks, is_dealt=True).saved() is None
