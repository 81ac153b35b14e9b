"""Implicit ALS: lists of two groups of users, scorers that equal the fit, a clear error without the library."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.evaluation.baselines.fit_data import Arrays
from dssm_assets.core.evaluation.baselines.registry import fit_baselines
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.extras.als import als
from dssm_assets.testing import fit_data
from dssm_assets_tests.core.evaluation.worlds import interactions
from dssm_assets_tests.worlds import CONFIG

ITEMS = [f"i{place:02d}" for place in range(20)]
USERS = [f"u{place:02d}" for place in range(30)]
SETTINGS = Evaluation(extra_baselines=["als"])


@pytest.fixture(autouse=True)
def few_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "FACTORS", 2)
    monkeypatch.setattr(als, "RIDGE", 0.5)


def groups() -> Interactions:
    """Users 0 to 13 took most of items 0 to 8, users 14 to 28 most of items 9 to 17; user 29 and items 18, 19 nothing."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(29):
        first = 0 if user < 14 else 9
        rows += [(USERS[user], ITEMS[first + item], 1 + int(rng.integers(3)), 1) for item in range(9) if rng.random() < 0.6]
    return interactions(rows, USERS, ITEMS)


def fitted(history: Interactions, seed: int = 3) -> Arrays:
    return als.fit(fit_data(history, history, history, SETTINGS, seed=seed))


def test_lists_are_of_the_own_group_and_without_history_popular() -> None:
    history = groups()
    arrays = fitted(history)
    scorer = als.scorer(arrays, history, history)
    lists = scorer.top_items(np.arange(30), 9)
    assert (lists[:14] < 9).all()
    assert ((lists[14:29] >= 9) & (lists[14:29] < 18)).all()
    assert lists[29].tolist() == arrays["order"][:9].tolist()
    assert sorted(scorer.top_items(np.array([0]), 20)[0].tolist()) == list(range(20))  # items without events come last


def test_fits_are_deterministic_and_lists_do_not_depend_on_the_range_of_users() -> None:
    history = groups()
    one, same, other = fitted(history), fitted(history), fitted(history, seed=4)
    assert one["factors"].tobytes() == same["factors"].tobytes() != other["factors"].tobytes()
    whole = als.scorer(one, history, history).top_items(np.arange(30), 6)
    later = Interactions(
        history.indptr[12:] - history.indptr[12],
        *(column[history.indptr[12] :] for column in (history.item_index, history.count, history.last_time_ms)),
        history.num_items,
    )
    assert als.scorer(one, later, later).top_items(np.arange(18), 6).tolist() == whole[12:].tolist()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(
        ConfigError, match=r"the package implicit, got not installed\. To fix: run pip install 'dssm-assets\[als\]'"
    ):
        fit_baselines(fit_data(*[groups()] * 3, SETTINGS))


def test_extra_baselines_are_checked_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="extra baselines must be of als, got ease"):
        parse_config({**CONFIG, "evaluation": {"extra_baselines": ["ease"]}})
    with pytest.raises(ConfigError, match=r"key gate\.baselines: .* got als\. To fix: add it to evaluation\.extra_baselines"):
        parse_config({**CONFIG, "gate": {"baselines": ["als"]}})
    both = {"gate": {"baselines": ["als"]}, "evaluation": {"extra_baselines": ["als"]}}
    assert parse_config({**CONFIG, **both}).gate.baselines == ["als"]
