"""The contract tests of a project of its own: pytest runs them there, and they find what breaks a contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dssm_assets.core.models.losses import LOSSES, softmax_loss
from dssm_assets.core.models.samplers import SAMPLERS, Draws, UniformSampler

_APART = [word for name in ("xdist", "timeout", "faulthandler", "cacheprovider") for word in ("-p", f"no:{name}")]
"""What the outer pytest goes on to use stays its own."""


def run_tests(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Runs the project's tests in this process; returns the exit status and what pytest prints."""
    capsys.readouterr()
    status = pytest.main(["-q", "--tb=line", f"--rootdir={folder}", *_APART, str(folder / "own_contracts_test.py")])
    return int(status), capsys.readouterr().out


def test_a_project_keeps_the_contracts_that_it_inherits(own_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = run_tests(own_project, capsys)
    assert (status, "9 passed" in printed) == (0, True), printed


class FirstHalf(UniformSampler):
    """Discloses that all items are as likely, and draws the first half of them."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        item_index = rng.integers(len(self.probability) // 2, size=count)
        return item_index, self.probability[item_index]


@dataclass
class _Ranked:
    """Ranks the last items first, but only where a list is short."""

    name: str = "least_popular"

    def top_items(self, user_rows: np.ndarray, k: int) -> np.ndarray:
        return np.tile(np.arange(k)[:: 1 if k > 4 else -1] % 9, (len(user_rows), 1))


def test_contracts_find_what_breaks_them(
    own_project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(own_project)
    import own_features
    import own_recall.least_popular
    import own_recall.ranking

    def ages(self: object, events: object) -> np.ndarray:
        return np.arange(1.0, 1.0 + events.offsets[-1])  # type: ignore[attr-defined]

    monkeypatch.setitem(LOSSES, "bpr", lambda *given: softmax_loss(*given) * given[4].weight.sum())
    monkeypatch.setitem(SAMPLERS, "rare_first", lambda model, weights, edges: FirstHalf(len(weights)))
    monkeypatch.setattr(own_recall.ranking.HalvingPooling, "event_weights", ages)
    monkeypatch.setattr(own_recall.least_popular, "scorer", lambda *given: _Ranked())
    monkeypatch.setattr(own_features.LengthFeature, "compute", lambda self, inputs: inputs[0])
    status, printed = run_tests(own_project, capsys)
    failed = {line.split("::")[1] for line in printed.splitlines() if line.startswith("FAILED")}
    assert status == 1
    assert failed == {"TestLoss", "TestSampler", "TestPooling", "TestBaseline", "TestLength"}, printed
