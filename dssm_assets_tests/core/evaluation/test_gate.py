"""The gate: each rule by hand, on both sides of its edge, and every key of its section."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.config.evaluation import Gate
from dssm_assets.core.errors import ConfigError, InputError
from dssm_assets.core.evaluation.gate import GateReport, hit_rate_gate
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, total_hit_rate
from dssm_assets_tests.core.evaluation.test_rates import counts

K, SAMPLES, SEED = 5, 200, 3
USERS = 40


def day(**hits: list[int]) -> pa.Table:
    """Returns counts in which every user has one item to find; scorer -> hits of its first users, the rest 0."""
    return pa.concat_tables([counts(name, [1] * USERS, some + [0] * (USERS - len(some))) for name, some in hits.items()])


def found(count: int) -> list[int]:
    return [1] * count


def before(**rates: float) -> dict[str, pa.Table]:
    """Returns `d07=0.5` as the totals of 2024-01-07, in which the model's warm hit_rate@5 was 0.5."""
    row = {"scorer": "model", "scope": "all", "population": "warm", "k": K, "ci_low": 0.0, "ci_high": 1.0}
    rest = {"user_recall": 0.0, "user_hit_rate": 0.0, "users": 1, "hits": 0, "truth_count": 1}
    rest |= {"ndcg": 0.0, "ndcg_ci_low": 0.0, "ndcg_ci_high": 0.0}
    others = [{"scorer": "popularity"}, {"scope": "repeat"}, {"population": "all"}, {"k": 1}]
    return {
        f"2024-01-{name[1:]}": pa.Table.from_pylist(
            [{**row, **rest, "hit_rate": rate}, *({**row, **rest, "hit_rate": 1.0, **other} for other in others)],
            schema=TOTAL_SCHEMA,
        )
        for name, rate in rates.items()
    }


def decide(hit_counts: pa.Table, previous: dict[str, pa.Table] | None = None, **keys: Any) -> GateReport:
    total = total_hit_rate(hit_counts, [K], SAMPLES, SEED)
    gate = Gate(**{"baselines": ["popularity"], **keys})
    return hit_rate_gate(hit_counts, total, previous or {}, gate, k=K, samples=SAMPLES, seed=SEED)


def test_a_model_clearly_behind_the_baseline_fails() -> None:
    # The model finds nothing that popularity misses: each resample's gain is minus the share of users 1 to 12 in it.
    report = decide(day(model=found(8), popularity=found(20)))
    assert not report.passed
    assert report.facts["gain"] == pytest.approx(-12 / 40)
    assert report.facts["gain_ci_high"] < 0
    assert "gain over popularity -0.3000" in report.sentence
    assert "is below +0" in report.sentence


def test_a_model_behind_within_the_interval_passes() -> None:
    # Users 1 to 8 are the model's, users 9 to 18 popularity's: the gain is 8 - 10 of 40, its interval holds 0.
    report = decide(day(model=found(8), popularity=[0] * 8 + found(10)))
    assert report.passed
    assert report.facts["gain"] == pytest.approx(-2 / 40)
    assert report.facts["gain_ci_low"] < 0 < report.facts["gain_ci_high"]


def test_equal_models_pass_at_the_edge() -> None:
    equal = day(model=found(10), popularity=found(10))
    assert decide(equal).passed
    assert decide(equal).facts["gain_ci_high"] == 0
    assert not decide(equal, baseline_margin=0.001).passed


def test_baseline_margin_moves_the_edge_both_ways() -> None:
    behind, ahead = day(model=found(8), popularity=found(20)), day(model=found(20), popularity=found(8))
    assert decide(behind, baseline_margin=-0.6).passed
    assert decide(ahead).passed
    assert not decide(ahead, baseline_margin=0.6).passed


def test_the_model_is_compared_with_the_best_configured_baseline() -> None:
    table = day(model=found(8), popularity=found(4), recent_popularity=found(20))
    assert decide(table).passed
    report = decide(table, baselines=["popularity", "recent_popularity"])
    assert (report.passed, report.facts["baseline"]) == (False, "recent_popularity")
    assert decide(table, baselines=[]).passed
    with pytest.raises(InputError, match=r"gate\.baselines: expected scorers of the day: model, popularity, recent"):
        decide(table, baselines=["own_history_all"])


def in_scope(table: pa.Table, scope: str) -> pa.Table:
    return table.set_column(1, "scope", pa.array([scope] * table.num_rows))


def test_every_configured_scope_is_compared() -> None:
    ahead = day(model=found(20), popularity=found(8), recent_popularity=found(4))
    behind = in_scope(day(model=found(4), popularity=found(8), recent_popularity=found(20)), "unseen")
    table, baselines = pa.concat_tables([ahead, behind]), ["popularity", "recent_popularity"]
    assert decide(table, baselines=baselines).passed
    report = decide(table, baselines=baselines, scopes=["all", "unseen"])
    assert not report.passed
    assert "; gain over popularity +0.3000" in report.sentence
    assert "; unseen: gain over recent_popularity -0.4000" in report.sentence
    assert (report.facts["baseline"], report.facts["unseen baseline"]) == ("popularity", "recent_popularity")
    assert report.facts["unseen gain"] == pytest.approx(-16 / 40)
    assert decide(table, baselines=baselines, scopes=["unseen"]).facts.get("gain") is None
    nothing_new = decide(ahead, scopes=["all", "new"])
    assert nothing_new.passed
    assert "no items to find in scope new" in nothing_new.sentence


def test_a_drop_fails_only_if_the_upper_bound_is_below_the_floor() -> None:
    table = day(model=found(20), popularity=found(0))
    bound = decide(table).facts["ci_high"]
    assert 0.5 < bound < 0.75
    # 0.7 times the mean of the days before: the bound itself, then a little more.
    assert decide(table, before(d06=bound / 0.7 - 1e-9)).passed
    report = decide(table, before(d06=bound / 0.7 + 1e-6))
    assert not report.passed
    assert "its upper bound is below" in report.sentence
    assert decide(table, before(d06=bound / 0.7 + 1e-6), max_drop_frac=0.31).passed


def test_a_drop_is_measured_from_the_mean_of_the_last_days() -> None:
    table = day(model=found(20), popularity=found(0))
    past = before(d05=1.0, d07=0.5, d06=0.7)
    assert decide(table, past, last_partitions=2).facts["mean_before"] == pytest.approx(0.6)
    facts = decide(table, past, last_partitions=3).facts
    assert facts["mean_before"] == pytest.approx(2.2 / 3)
    assert facts["floor"] == pytest.approx(0.7 * 2.2 / 3)
    assert facts["days_before"] == ["2024-01-05", "2024-01-06", "2024-01-07"]
    assert decide(table, past, last_partitions=1).facts["days_before"] == ["2024-01-07"]
    assert "mean_before" not in decide(table, past, last_partitions=0).facts


def test_days_without_that_k_or_warm_users_are_ignored() -> None:
    past = before(d06=0.4, d07=0.5)
    past["2024-01-07"] = past["2024-01-07"].filter(pa.array([False, True, True, True, True]))
    report = decide(day(model=found(20), popularity=found(0)), past)
    assert report.facts["days_before"] == ["2024-01-06"]
    assert "1 partition before" in report.sentence


def test_the_first_day_passes_the_drop_rule() -> None:
    report = decide(day(model=found(20), popularity=found(0)))
    assert report.passed
    assert "no earlier day with hit_rate@5" in report.sentence
    assert report.facts["hit_rate"] == 0.5


def test_a_model_without_a_measured_hit_rate_fails() -> None:
    report = decide(day(popularity=found(3)))
    assert report == GateReport(False, "no warm user has a warm item to find, so hit_rate@5 of the model was not measured")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"baselines": ["popularity", "popularity"]}, "must be distinct, got popularity, popularity"),
        ({"baselines": ["model"]}, "must be of popularity, .*, got model"),
        ({"scopes": ["all", "all"]}, "must be distinct, got all, all"),
        ({"scopes": ["seen"]}, "'all', 'discovery', 'repeat', 'new' or 'unseen'"),
        ({"max_drop_frac": 1.5}, "less than or equal to 1"),
        ({"last_partitions": -1}, "greater than or equal to 0"),
        ({"min_hit_rate": 1}, "unknown key 'min_hit_rate'"),
    ],
)
def test_bad_gate_keys_are_refused(keys: dict[str, Any], said: str) -> None:
    from dssm_assets.core.config.pipeline import parse_config
    from dssm_assets_tests.worlds import CONFIG

    with pytest.raises(ConfigError, match=f"key gate.*{said}"):
        parse_config({**CONFIG, "gate": keys})
