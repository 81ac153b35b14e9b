"""Rates, errors, EASE and the prior against sums by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets_tests.benchmarks.quality_features import (
    Entities,
)
from dssm_assets_tests.benchmarks.quality_peers import fit_ease
from dssm_assets_tests.benchmarks.quality_prior import add_prior, best_prior
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors, Run, scored, summary
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split, cut, distinct_log


def _split(rows: Sequence[tuple[int, int, int]], rule: str) -> Split:
    return cut(distinct_log(*(np.array(column, np.int64) for column in zip(*rows, strict=True))), rule)


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Users 0 and 1 each have items 0, 1, 2 in the training part; truth: user 0 item 3 and 4, user 1 item 3.
    monkeypatch.setattr("dssm_assets_tests.benchmarks.quality_scores.K", 2)
    day = SECONDS_PER_DAY
    early = [(user, item, item) for user in (0, 1) for item in (0, 1, 2)] + [(2, 3, 3), (2, 4, 4)]
    split = _split([*early, (0, 3, 9 * day), (0, 4, 9 * day), (1, 3, 9 * day)], "temporal-1")
    scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 0.5, 1.5]])
    run = scored(ByScores(lambda users: scores[users]), split, 7.0)
    # Filtered leaves items 3 and 4 to both: 3 of 3. Unfiltered: user 0 gets 0 and 1, user 1 gets 2 and 4: 0 of 3.
    assert run.hits("filtered").tolist() == [2, 1]
    assert run.hits("unfiltered").tolist() == [0, 0]
    assert (run.rate("filtered"), run.rate("unfiltered")) == (1.0, 0.0)


def test_summary_by_hand() -> None:
    # Users 0 to 3 had item 0, and items 1 and 2 are held out of each.
    rows = [(user, item, item * SECONDS_PER_DAY) for user in range(4) for item in range(3)]
    split = _split([*rows, (4, 1, 0), (5, 2, 0)], "lastpct-67")
    assert split.truth_row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    missed = np.full(8, 200)
    runs = [
        Run({"filtered": np.where(np.repeat(hits, 2), 0, 200), "unfiltered": missed}, split, 5.0)
        for hits in ([1, 0, 1, 0], [1, 1, 1, 0])
    ]
    found = summary(runs)
    # Rates 4 / 8 and 6 / 8: mean .625, standard deviation of a sample of two sqrt(2) / 8 = .1768.
    assert found["filtered"]["hit_rate@200"] == 0.625
    assert found["filtered"]["sd"] == pytest.approx(0.17678, abs=1e-5)
    # The mean of four users of 0 or 1: sqrt(.25 / 4) = .25 and sqrt(.1875 / 4) = .2165.
    assert found["filtered"]["se"] == pytest.approx((0.25 + 0.2165) / 2, abs=0.015)
    assert summary(runs, is_seeded=False)["filtered"]["sd"] == 0.0
    assert found["samples_per_cpu_s"] == 5.0


def test_ease_by_hand() -> None:
    # Two items of the same two users, with l2 = 1: the Gram matrix is [[3, 2], [2, 3]], its inverse
    # [[.6, -.4], [-.4, .6]], so the weight of each item for the other is .4 / .6.
    split = _split([(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1), (1, 2, 9)], "loo")
    model, speed = fit_ease(split, {"l2": 1.0}, 0, Entities(pa.table({}), pa.table({})))
    assert isinstance(model, ByScores)
    assert model.score(np.array([0])) == pytest.approx(np.array([[2 / 3, 2 / 3]]))
    assert speed > 0


def test_prior_lifts_popular_items() -> None:
    day = SECONDS_PER_DAY
    early = [(user, 0, 0) for user in range(8)] + [(user, 1 + user % 3, day) for user in range(8)]
    split = _split(
        [*early, *((user, 4, day) for user in range(8, 11)), *((user, 0, 9 * day) for user in range(8, 11))], "temporal-1"
    )
    rng = np.random.default_rng(0)
    vectors = ByVectors(rng.normal(size=(11, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32))
    prior = best_prior(vectors, split, temperature=0.1)
    moved = add_prior(vectors, split, prior)
    assert moved.items.shape == (5, 5)
    assert (moved.users[:, -1] == 1).all()
    assert moved.items[:, -1].sum() == pytest.approx(0, abs=1e-5)
    assert add_prior(vectors, split, None) is vectors
