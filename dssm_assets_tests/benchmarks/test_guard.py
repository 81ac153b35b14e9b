"""The regression guard: its comparison by hand, its quick ratios on tiny data, and once a week the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets_tests.benchmarks import guard
from dssm_assets_tests.benchmarks.guard import Ratio


def test_ratio_is_the_median_and_its_noise_the_farthest_round() -> None:
    assert Ratio.from_rounds([2.0, 1.0, 2.2]) == Ratio(2.0, 0.5)


def test_ratio_moves_only_beyond_both_noises() -> None:
    before = Ratio(1.0, 0.1)
    assert Ratio(1.24, 0.15).change_from(before) == 0
    assert Ratio(1.26, 0.15).change_from(before) == pytest.approx(0.26)
    assert Ratio(0.5, 0.15).change_from(before) == pytest.approx(-0.5)
    assert Ratio(1.04, 0.0).change_from(Ratio(1.0, 0.0)) == 0, "less than counts"


def test_lines_name_what_moved() -> None:
    assert guard.line("a", Ratio(1.5, 0.02), Ratio(1.0, 0.01)).endswith("+50% SLOWER")
    assert guard.line("a", Ratio(0.5, 0.02), Ratio(1.0, 0.01)).endswith("-50% faster")
    assert guard.line("a", Ratio(1.0, 0.02), Ratio(1.0, 0.01)).endswith("±  1%")
    assert guard.line("a", Ratio(1.0, 0.02), None).endswith("not in the file")


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    guard.write({"a": Ratio(0.123456, 0.0), "b": Ratio(1234.56, 0.25)}, tmp_path / "guard.json")
    assert guard.read(tmp_path / "guard.json") == {"a": Ratio(0.1235, 0.0), "b": Ratio(1235.0, 0.25)}


def test_committed_file_has_the_quick_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BUDGET_S", 1e-9)
    quick = dict([*guard.search_ratios(users=4, items=300), *guard.array_ratios(texts=20_000, rows=20_000)])
    assert quick.keys() <= guard.read().keys()
    assert min(one_round() for one_round in quick.values()) > 0


@pytest.mark.slow
@pytest.mark.weekly
@pytest.mark.timeout(1800)
def test_nothing_has_become_slower(capsys: pytest.CaptureFixture[str]) -> None:
    status = guard.main([])
    print(printed := capsys.readouterr().out)
    assert status == 0, printed
