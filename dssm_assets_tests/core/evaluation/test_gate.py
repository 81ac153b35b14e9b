"""The gate: each rule by hand, on both sides of its edge, and every key of its section."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.config.evaluation import Gate
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.gate import GateReport, Verdict, hit_rate_gate
from dssm_assets.core.evaluation.rates import split_cells, sum_hits
from dssm_assets_tests.core.evaluation.test_rates import counts

K, SAMPLES, SEED = 5, 200, 3
USERS = 40


def day(**hits: list[int]) -> pa.Table:
    """Returns counts in which every user has one item to find; scorer -> hits of its first users, the rest 0."""
    return pa.concat_tables([counts(name, [1] * USERS, some + [0] * (USERS - len(some))) for name, some in hits.items()])


def found(count: int) -> list[int]:
    return [1] * count


def totals(hit_counts: pa.Table) -> pa.Table:
    return sum_hits(split_cells(hit_counts), [K], SAMPLES, SEED)


def before(**days: dict[str, int]) -> dict[str, pa.Table]:
    """Returns `d07={"model": 10}` as the totals of 2024-01-07, on which the model found the items of 10 of the 40 users."""
    return {
        f"2024-01-{name[1:]}": totals(day(**{scorer: found(hits) for scorer, hits in scorers.items()}))
        for name, scorers in days.items()
    }


def decide(hit_counts: pa.Table, previous: dict[str, pa.Table] | None = None, **keys: Any) -> GateReport:
    gate = Gate(**{"min_pairs": 0, **keys})
    cells = split_cells(hit_counts)
    return hit_rate_gate(cells, totals(hit_counts), previous or {}, gate, k=K, samples=SAMPLES, seed=SEED)


def test_a_model_clearly_behind_the_baseline_fails_and_the_sentence_says_by_how_much() -> None:
    # The model finds nothing that popularity misses: each resample's gain is minus the share of users 9 to 20 in it.
    report = decide(day(model=found(8), popularity=found(20)))
    assert (report.verdict, report.passed) == (Verdict.FAILED, False)
    assert report.facts["gain"] == pytest.approx(-12 / 40)
    assert report.facts["gain_ci_high"] < 0
    low, high = report.facts["gain_ci_low"], report.facts["gain_ci_high"]
    assert report.sentence == (
        "failed: two-tower model (0.2000) is behind the best baseline, popularity (0.5000), by -0.3000 "
        f"[{low:+.4f}, {high:+.4f}] of hit_rate@5, 40 users; no earlier partitions with enough items to find to compare with"
    )
    assert report.summary == report.facts["verdict"] == f"failed: gain -0.3000 [{low:+.4f}, {high:+.4f}]"


def test_an_interval_wider_than_the_rate_it_compares_with_is_no_evidence() -> None:
    # Rates of 0.2 and 0.25; the interval of the difference spans more than 0.25. With equal users it has no width.
    report = decide(day(model=found(8), popularity=[0] * 8 + found(10)))
    assert report.facts["gain_ci_high"] - report.facts["gain_ci_low"] > 0.25
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "an interval wider than the baseline's own rate" in report.sentence
    equal = day(model=found(10), popularity=found(10))
    report = decide(equal)
    assert (report.verdict, report.facts["gain_ci_high"]) == (Verdict.PASSED, 0)
    assert not decide(equal, baseline_margin=0.001).passed


def test_baseline_margin_moves_the_edge_both_ways() -> None:
    behind, ahead = day(model=found(8), popularity=found(20)), day(model=found(20), popularity=found(8))
    assert decide(behind, baseline_margin=-0.6).passed
    assert decide(ahead).passed
    refused = decide(ahead, baseline_margin=0.6)
    assert not refused.passed
    assert "; at least +0.6 is required" in refused.sentence
    assert refused.summary.startswith("failed: gain +") and refused.summary.endswith("], needs +0.6")


def test_the_best_of_all_baselines_of_the_report_counts_unless_some_are_named() -> None:
    table = day(model=found(8), popularity=found(4), own_history_all=found(20))
    report = decide(table)
    assert (report.passed, report.facts["baseline"]) == (False, "own_history_all")
    assert "is behind the best baseline, own history, all days (0.5000)" in report.sentence
    assert decide(table, baselines=["popularity"]).passed
    nothing = decide(table, baselines=[])
    assert (nothing.passed, nothing.sentence) == (True, "passed: compared with no baseline")
    with pytest.raises(
        InputError, match=r"gate\.baselines: expected baselines of the day: own_history_all, popularity, got ease"
    ):
        decide(table, baselines=["ease"])


def test_the_list_that_is_served_is_judged_and_the_model_is_named_beside_it() -> None:
    # The merged list is ahead, the vectors alone are behind; its parts are no baselines, however much they find.
    table = day(
        model=found(4), merged=found(30), popularity=found(16), channel_own_history=found(40), merged_without_vectors=found(40)
    )
    report = decide(table)
    assert (report.verdict, report.facts["scorer"], report.facts["baseline"]) == (Verdict.PASSED, "merged", "popularity")
    assert "merged list (0.7500) is ahead of the best baseline, popularity (0.4000), by +0.3500" in report.sentence
    assert (
        "(not judged: two-tower model (0.1000) is behind the best baseline, popularity (0.4000), by -0.3000" in report.sentence
    )
    alone = decide(table, scorer="model")
    assert (alone.verdict, alone.facts["scorer"]) == (Verdict.FAILED, "model")
    assert "not judged" not in alone.sentence


def in_cell(table: pa.Table, scope: str, population: str = "warm") -> pa.Table:
    rows = [{**row, "scope": scope, "population": population} for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_every_configured_scope_is_compared() -> None:
    ahead = day(model=found(20), popularity=found(8), recent_popularity=found(4))
    behind = in_cell(day(model=found(4), popularity=found(8), recent_popularity=found(20)), "unseen")
    table = pa.concat_tables([ahead, behind])
    assert decide(table).passed
    report = decide(table, scopes=["all", "unseen"])
    assert not report.passed
    assert "ahead of the best baseline, popularity (0.2000), by +0.3000" in report.sentence
    assert "; unseen: two-tower model (0.1000) is behind the best baseline, recent popularity (0.5000)" in report.sentence
    assert (report.facts["baseline"], report.facts["unseen baseline"]) == ("popularity", "recent_popularity")
    assert report.facts["unseen gain"] == pytest.approx(-16 / 40)
    assert decide(table, scopes=["unseen"]).facts.get("gain") is None
    nothing_new = decide(ahead, scopes=["all", "new"])
    assert nothing_new.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "new: no known user has a known item to find" in nothing_new.sentence


def test_the_merged_list_is_also_compared_over_all_users_and_items() -> None:
    # Of warm pairs the merged list finds 30 of 40, popularity 16. Of all 80 it finds 32, popularity 56: behind by 24/80.
    warm = day(model=found(4), merged=found(30), popularity=found(16))
    hits = {"merged": 32, "model": 4, "popularity": 56}
    everyone = [counts(name, [1] * 80, found(some) + [0] * (80 - some)) for name, some in hits.items()]
    table = pa.concat_tables([warm, in_cell(pa.concat_tables(everyone), "all", "all")])
    report = decide(table, before(d07={"merged": 30, "popularity": 16}))
    assert (report.passed, report.facts["gain"]) == (False, pytest.approx(14 / 40))
    assert report.facts["all users and items gain"] == pytest.approx(-24 / 80)
    behind = "; all users and items: merged list (0.4000) is behind the best baseline, popularity (0.7000), by -0.3000 ["
    assert behind in report.sentence and report.sentence.endswith("of hit_rate@5, 80 users")
    assert (report.sentence.count("not judged"), report.sentence.count("partition before")) == (1, 1)
    assert re.fullmatch(r"failed: gain -0\.3000 \[-[0-9.]+, -[0-9.]+\], all users and items", report.summary)
    # The vectors have no list for every user, and a day of warm pairs alone is one question.
    assert "all users" not in decide(table, scorer="model").sentence
    assert "all users" not in decide(pa.concat_tables([warm, in_cell(warm, "all", "all")])).sentence


def test_a_day_with_few_items_to_find_is_not_enough_evidence() -> None:
    # All 40 users' items are missed and popularity finds them all: surely behind, on 40 pairs.
    table = day(model=found(0), popularity=found(40))
    report = decide(table, min_pairs=41)
    assert (report.verdict, report.passed) == (Verdict.NOT_ENOUGH_EVIDENCE, True)
    assert report.sentence == "not enough evidence: 40 items to find by 40 known users; a verdict needs 41 by 8"
    assert report.summary == "not enough evidence: 40 items to find"
    assert not decide(table, min_pairs=40).passed


def test_a_hard_day_is_no_drop() -> None:
    # On the day before 30 of 40 were found, popularity 20: 1.5 times. Today everything finds a tenth: 3 and 2 are 1.5 times again.
    report = decide(day(model=found(3), popularity=found(2)), before(d06={"model": 30, "popularity": 20}))
    assert report.passed
    assert report.facts["ratio_before"] == pytest.approx(1.5)
    assert report.facts["required_ratio"] == pytest.approx(0.7 * 1.5)
    assert report.sentence.endswith("; it finds 1.50 times as many items as the baseline, 1.50 times on the 1 partition before")


def test_a_lost_lead_is_a_drop_even_on_an_easy_day() -> None:
    # 36 of 40 are found, more than ever, but the baseline finds as many: 1 time, where 0.7 * 3 = 2.1 times are required.
    today, past = day(model=found(36), popularity=found(36)), before(d06={"model": 30, "popularity": 10})
    report = decide(today, past)
    assert not report.passed
    assert report.sentence.endswith(
        "it finds 1.00 times as many items as the baseline, 3.00 times on the 1 partition before: surely a drop of more than 30%"
    )
    assert report.summary == "failed: 1.00 times the baseline, 3.00 before"
    # 1 time is what a drop of two thirds leaves.
    assert decide(today, past, max_drop_frac=0.67).passed


def test_the_last_partitions_count_together_each_against_its_own_best_baseline() -> None:
    table = day(model=found(20), popularity=found(10))
    past = before(
        d05={"model": 40, "popularity": 10},
        d06={"model": 10, "popularity": 10, "ease": 20},
        d07={"model": 20, "popularity": 5},
    )
    # The last two: 10 + 20 hits against 20 (EASE) + 5.
    assert decide(table, past, last_partitions=2).facts["ratio_before"] == pytest.approx(30 / 25)
    assert decide(table, past, last_partitions=2, baselines=["popularity"]).facts["ratio_before"] == pytest.approx(30 / 15)
    facts = decide(table, past, last_partitions=3).facts
    assert facts["ratio_before"] == pytest.approx(70 / 35)
    assert facts["days_before"] == ["2024-01-05", "2024-01-06", "2024-01-07"]
    assert decide(table, past, last_partitions=1).facts["days_before"] == ["2024-01-07"]
    assert "ratio_before" not in decide(table, past, last_partitions=0).facts


def test_partitions_without_the_judged_list_or_with_few_pairs_are_not_compared() -> None:
    # The merged list is new: of the days before, only the second has it.
    table = day(merged=found(20), model=found(20), popularity=found(10))
    past = before(d06={"model": 40, "popularity": 10}, d07={"merged": 20, "model": 5, "popularity": 10})
    assert decide(table, past).facts["days_before"] == ["2024-01-07"]
    # Today's 40 pairs are enough; so are the 40 of the day before, and not with 41.
    assert decide(table, past, min_pairs=40).facts["ratio_before"] == pytest.approx(2)
    few = before(d07={"merged": 20, "popularity": 10})
    few["2024-01-07"] = few["2024-01-07"].set_column(
        few["2024-01-07"].column_names.index("truth_count"), "truth_count", pa.array([39, 39], pa.int64())
    )
    assert "no earlier partitions with enough items" in decide(table, few, min_pairs=40).sentence


def test_a_day_without_known_users_and_items_is_not_enough_evidence() -> None:
    report = decide(day(popularity=found(3)))
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert report.sentence == "not enough evidence: no known user has a known item to find"
