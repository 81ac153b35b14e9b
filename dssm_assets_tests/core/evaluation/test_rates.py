"""Rates against hand arithmetic, and intervals against the analytic interval of a ratio."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.core.evaluation.rates import (
    TOTAL_SCHEMA,
    TREND_SCHEMA,
    HitCells,
    best_baseline,
    gains_over_best,
    is_sure_gain,
    paired_gain,
    split_cells,
    sum_hits,
    trend_table,
)
from dssm_assets.core.names import Scope
from dssm_assets.core.schema import check_schema
from dssm_assets_tests.core.evaluation.worlds import total_row


def counts(
    scorer: str, truth: list[int], hits: list[int], users: list[str] | None = None, ndcg: list[float] | None = None
) -> pa.Table:
    size = len(truth)
    return pa.table(
        {
            "scorer": [scorer] * size,
            "scope": ["all"] * size,
            "population": ["warm"] * size,
            "user_id": users or [f"u{i:05d}" for i in range(size)],
            "truth_count": pa.array(truth, pa.int64()),
            "hits_5": pa.array(hits, pa.int64()),
            "ndcg_5": pa.array(ndcg or [0.0] * size, pa.float64()),
        }
    )


def joined(*parts: pa.Table) -> HitCells:
    return split_cells(pa.concat_tables(parts))


def test_total_hit_rate_example_of_the_docstring() -> None:
    table = sum_hits(split_cells(counts("model", [4, 1], [1, 1], ndcg=[0.25, 1.0])), [5], 2000, 1)
    check_schema(TOTAL_HIT_RATE, table.schema)
    (row,) = table.to_pylist()
    assert row == {
        "scorer": "model",
        "scope": "all",
        "population": "warm",
        "k": 5,
        "hit_rate": pytest.approx(0.4),
        "ci_low": pytest.approx(0.25),
        "ci_high": pytest.approx(1.0),
        "user_recall": pytest.approx(0.625),
        "user_hit_rate": 1.0,
        "ndcg": 0.625,
        "ndcg_ci_low": 0.25,
        "ndcg_ci_high": 1.0,
        "users": 2,
        "hits": 2,
        "truth_count": 5,
    }


def test_total_hit_rate_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="no user with truth"):
        sum_hits(split_cells(counts("model", [], [])), [5], 100, 1)


def test_counts_without_ndcg_are_refused() -> None:
    stored = counts("model", [1], [1]).drop_columns("ndcg_5")
    with pytest.raises(SchemaError, match=r"got no ndcg_5\. To fix: materialize hit_counts of this day again"):
        sum_hits(split_cells(stored), [5], 100, 1)


def skewed(users: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    rng = np.random.default_rng(seed)
    truth = 1 + rng.geometric(0.2, size=users)
    easy = rng.beta(2, 5, size=users)
    model = rng.binomial(truth, easy)
    return truth.tolist(), model.tolist(), np.maximum(model - (rng.random(users) < 0.1), 0).tolist()


def analytic(numerator: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Linearised (delta method) 95% interval of sum(numerator) / sum(truth) over independent users."""
    rate = numerator.sum() / truth.sum()
    error = np.std(numerator - rate * truth, ddof=1) / (np.sqrt(len(truth)) * truth.mean())
    return rate - 1.96 * error, rate + 1.96 * error


def test_bootstrap_interval_is_that_of_a_ratio_estimator() -> None:
    truth, hits, _ = skewed(800, 5)
    (row,) = sum_hits(split_cells(counts("model", truth, hits)), [5], 4000, 9).to_pylist()
    low, high = analytic(np.array(hits), np.array(truth))
    assert row["ci_low"] == pytest.approx(low, abs=0.06 * (high - low))
    assert row["ci_high"] == pytest.approx(high, abs=0.06 * (high - low))


def test_gain_is_paired() -> None:
    truth, ours, theirs = skewed(800, 7)
    table = joined(counts("model", truth, ours), counts("popularity", truth, theirs))
    cell = {"scope": Scope.ALL, "k": 5, "samples": 4000, "seed": 2}
    gain = paired_gain(table, scorer="model", against="popularity", **cell)
    low, high = analytic(np.array(ours) - np.array(theirs), np.array(truth))
    assert gain.gain == pytest.approx((sum(ours) - sum(theirs)) / sum(truth))
    assert (gain.ci_low, gain.ci_high) == (
        pytest.approx(low, abs=0.08 * (high - low)),
        pytest.approx(high, abs=0.08 * (high - low)),
    )
    # Unpaired, the two rates overlap; paired, the difference is clear.
    rows = {row["scorer"]: row for row in sum_hits(table, [5], 1000, 2).to_pylist()}
    assert rows["popularity"]["ci_high"] > rows["model"]["ci_low"]
    assert gain.ci_low > 0


def test_gains_are_over_the_best_baseline() -> None:
    table = joined(counts("model", [2, 2], [1, 1]), counts("bad", [2, 2], [0, 0]), counts("good", [2, 2], [2, 1]))
    (gain,) = gains_over_best(table, sum_hits(table, [5], 100, 1), k=5, samples=100, seed=1)
    assert (gain.against, gain.gain, gain.scope) == ("good", -0.25, Scope.ALL)


def test_gain_over_a_scorer_of_some_users_is_that_of_these_users() -> None:
    # Of users 0 to 3 the other list was made for 1 and 3: there ours finds 1 + 2 of 2 + 4 items, the other 0 + 1, so (3 - 1) / 6.
    cell = {"scope": Scope.ALL, "k": 5, "samples": 100, "seed": 2}
    ours = counts("merged", [9, 2, 9, 4], [9, 1, 9, 2], ["u0", "u1", "u2", "u3"])
    gain = paired_gain(
        joined(ours, counts("channel_x", [2, 4], [0, 1], ["u1", "u3"])),
        scorer="merged",
        against="channel_x",
        **cell,
    )
    assert gain.gain == pytest.approx(2 / 6)
    alone = joined(counts("merged", [2, 4], [1, 2], ["u1", "u3"]), counts("channel_x", [2, 4], [0, 1], ["u1", "u3"]))
    assert paired_gain(alone, scorer="merged", against="channel_x", **cell) == gain


def test_gain_over_a_missing_scorer_or_other_users_is_refused() -> None:
    cell = {"scope": Scope.ALL, "k": 5, "samples": 100, "seed": 2}
    table = joined(counts("model", [1], [1]), counts("other", [1], [1], ["zz"]))
    with pytest.raises(InputError, match="different users"):
        paired_gain(table, scorer="model", against="other", **cell)
    some = joined(counts("model", [9, 2], [1, 1]), counts("popularity", [2], [1], ["u1"]))
    with pytest.raises(InputError, match="different users"):  # a baseline is counted for all users
        paired_gain(some, scorer="model", against="popularity", **cell)
    with pytest.raises(InputError, match="rows of scorer missing"):
        paired_gain(table, scorer="model", against="missing", **cell)


DAYS = [
    ("2026-03-01", [total_row(hit_rate=0.1, k=10), total_row(hit_rate=0.2, k=5), total_row(population="cold", k=10)]),
    ("2026-03-02", [total_row(k=5)]),
    ("2026-03-04", [total_row("popularity", "discovery", hit_rate=0.3, k=10), total_row(hit_rate=0.4, k=10)]),
]


def test_trend_has_one_k_and_population_in_the_order_of_days() -> None:
    totals = [(day, pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)) for day, rows in DAYS]
    trend = trend_table(iter(totals), 10)
    assert trend.schema == TREND_SCHEMA
    assert [(row["day"], row["scope"], row["scorer"], row["hit_rate"]) for row in trend.to_pylist()] == [
        ("2026-03-01", "all", "model", 0.1),
        ("2026-03-04", "discovery", "popularity", 0.3),
        ("2026-03-04", "all", "model", 0.4),
    ]


def test_best_baseline_leaves_out_the_model_and_lists_of_channels() -> None:
    rates = {"model": 0.9, "merged": 0.8, "channel_vectors": 0.7, "ease": 0.2, "als": 0.2, "popularity": 0.1}
    rows = {name: {"hit_rate": rate} for name, rate in rates.items()}
    assert best_baseline(rows) == "als"
    assert best_baseline(rows, ["model", "popularity", "of another day"]) == "popularity"
    assert best_baseline({name: rows[name] for name in ("model", "merged")}) is None


@pytest.mark.parametrize(
    ("gained", "lost", "is_sure"), [(9, 0, True), (9, 4, False), (4, 0, False), (0, 9, False), (0, 0, False)]
)
def test_a_sure_gain_is_more_than_two_errors(gained: int, lost: int, is_sure: bool) -> None:
    # The errors are the roots of 9, 13 and 4.
    assert is_sure_gain(np.repeat([1, -1, 0], [gained, lost, 50])) is is_sure
