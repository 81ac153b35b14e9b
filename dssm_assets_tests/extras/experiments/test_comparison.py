"""Gains of an experiment over the regular run, worked out by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.names import Population, Scope
from dssm_assets.extras.experiments.comparison import paired_gains


def cells(users, truth, hits, scorer="model"):
    """Returns hit counts of warm pairs of all items, of one scorer."""
    return {(Scope.ALL, Population.WARM): {scorer: pa.table({"user_id": users, "truth_count": truth, "hits_5": hits})}}


def test_gain_and_its_interval_pair_the_users():
    first, second = cells(["a", "b"], [4, 1], [2, 1]), cells(["b", "a"], [1, 4], [1, 1])
    found = paired_gains(first, second, [5], 1000, 7)
    assert set(found) == {("model", "all", 5)}
    gain = found["model", "all", 5]
    # (2 + 1 - 1 - 1) / 5; the resamples {a, a}, {a, b}, {b, b} give 2/8, 1/5, 0.
    assert gain == (pytest.approx(0.2), 0.0, 0.25)


def test_only_users_that_both_scored_count():
    first, second = cells(["a", "c"], [4, 9], [2, 9]), cells(["a", "b"], [4, 1], [1, 0])
    gain = paired_gains(first, second, [5], 10, 7)["model", "all", 5]
    assert gain == (0.25, 0.25, 0.25)


def test_nothing_to_compare_gives_no_cell():
    first = cells(["a"], [4], [2])
    assert paired_gains(first, cells(["b"], [4], [2]), [5], 10, 7) == {}
    assert paired_gains(first, cells(["a"], [4], [2], scorer="merged"), [5], 10, 7) == {}
    assert paired_gains(first, first, [], 10, 7) == {}
