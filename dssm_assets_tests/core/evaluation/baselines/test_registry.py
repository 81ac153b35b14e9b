"""Every baseline of the registry can be fitted, named in the configuration and shown, without an edit elsewhere."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from dssm_assets.core.config.evaluation import Evaluation, Gate
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer
from dssm_assets.core.evaluation.baselines.registry import check_extras
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.names import BASELINES, Baseline, extra_baselines
from dssm_assets.testing import BaselineContract
from dssm_assets_tests.core.evaluation.baselines.small_world import ITEMS, USERS, WINDOW, scorers
from dssm_assets_tests.core.evaluation.worlds import fitted_scorers, interactions


def test_every_registered_baseline_is_fitted_under_its_name() -> None:
    assert tuple(scorers()) == tuple(name for name in BASELINES if name not in extra_baselines())
    assert tuple(scorers(Evaluation(extra_baselines=list(extra_baselines())))) == tuple(BASELINES)
    assert len(set(map(display_name, BASELINES))) == len(BASELINES)
    assert Gate(baselines=list(BASELINES)).baselines == list(BASELINES)


def test_a_registered_file_is_scored_without_another_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe: a file with fit and scorer, and a line in the registry."""
    module = types.ModuleType("last_item_first")
    module.fit = lambda data: {"order": np.arange(len(data.window_events))[::-1]}  # type: ignore[attr-defined]
    module.scorer = lambda arrays, window, history: PopularityScorer("last_item_first", arrays["order"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "last_item_first", module)
    monkeypatch.setitem(BASELINES, "last_item_first", Baseline("last item first", "last_item_first", is_extra=False))
    window = interactions(WINDOW, USERS, ITEMS)
    found = {one.name: one for one in fitted_scorers(window, window, window, Evaluation())}
    assert found["last_item_first"].top_items(np.array([0]), 3).tolist() == [[5, 4, 3]]


def test_a_baseline_without_code_is_refused_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "lost", Baseline("lost", "no_such_project.lost"))
    with pytest.raises(ConfigError, match=r"BASELINES, lost: expected fit and scorer in no_such_project.lost"):
        check_extras(["lost"])


class TestBaselines(BaselineContract):
    names = tuple(BASELINES)
