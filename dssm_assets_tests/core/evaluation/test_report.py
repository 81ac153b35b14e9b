"""Sections of the report from small tables; the whole report is in the tests of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.evaluation.list_quality import OVERLAP_SCHEMA, QUALITY_SCHEMA
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, Gain, trend_table
from dssm_assets.core.evaluation.report import (
    ListFacts,
    cell,
    channel_section,
    headline,
    list_section,
    scope_section,
    segment_report,
    segment_section,
    trend_section,
)
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA, ItemPopularity
from dssm_assets.core.names import Population, Scope, counted_population
from dssm_assets_tests.core.evaluation.worlds import total_row


@pytest.mark.parametrize(
    ("bounds", "verdict"), [((0.001, 0.02), "yes"), ((0.0, 0.02), "not shown"), ((-0.02, -0.001), "no, it costs")]
)
def test_channels_say_whether_each_is_surely_worth_its_place(bounds: tuple[float, float], verdict: str) -> None:
    rows = [total_row(name, k=200) for name in ("merged", "merged_without_vectors", "model")]
    gain = Gain("merged", "merged_without_vectors", Scope.ALL, 200, sum(bounds) / 2, *bounds)
    assert f"] | {verdict} |" in channel_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), [gain])


@pytest.mark.parametrize(("users", "sentence"), [(900, "a sample of 900 of these 2,000 users"), (2000, None)])
def test_channels_say_of_how_many_users_they_are(users: int, sentence: str | None) -> None:
    named = {"merged": 2000, "merged_without_vectors": users, "model": 2000}
    rows = [{**total_row(name, k=200), "users": counted} for name, counted in named.items()]
    gain = Gain("merged", "merged_without_vectors", Scope.ALL, 200, 0.01, 0.0, 0.02)
    text = channel_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), [gain])
    assert "| vectors |" in text and "+0.0100 [+0.0000, +0.0200]" in text
    assert ("sample" in text) is (sentence is not None) and (sentence or "") in text


def test_a_scope_says_how_many_users_are_scored_though_parts_are_of_a_sample() -> None:
    rows = [{**total_row(name, k=200), "users": users} for name, users in (("channel_own_history", 900), ("model", 2000))]
    assert "2,000 users" in scope_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), Scope.ALL, None)


def segments(*rows: tuple[str, str], hit_rate: float = 0.25) -> pa.Table:
    numbers = {"users": 1200, "hits": 3, "truth_count": 12, "hit_rate": hit_rate, "ci_low": 0.125, "ci_high": 0.5}
    return pa.Table.from_pylist([{"segment": s, "value": v, **numbers} for s, v in rows], schema=SEGMENT_SCHEMA)


def test_each_segment_has_a_table() -> None:
    rows = [("age_group", "25-34"), ("age_group", "a|b"), ("tenure", "first-time")]
    text = segment_section({"merged": segments(*rows, hit_rate=0.5), "model": segments(*rows)}, 200)
    assert "hit_rate@200 of the merged list and the two-tower model." in text
    assert "| age\\_group" not in text
    head = "| age group | users | items to find | merged list | two-tower model |\n| --- | ---: | ---: | ---: | ---: |\n"
    assert f"**By age group, hit_rate@200**\n\n{head}" in text
    assert "| 25-34 | 1,200 | 12 | 0.500 [0.125, 0.500] | 0.250 [0.125, 0.500] |\n| a\\|b | 1,200 |" in text
    assert text.count("| --- |") == 2
    assert segment_report("2026-03-01", {"model": segments(("tenure", "first-time"))}, 5).startswith(
        "# Hit rate by segment on 2026-03-01\n\n## By"
    )
    assert "No segment has users." in segment_section({"model": segments()}, 200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("two\nlines  here", "two lines here"),
        ("*x* `y` [z](u)", "\\*x\\* \\`y\\` \\[z\\](u)"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("x" * 61, "x" * 59 + "…"),
        ("", ""),
    ],
)
def test_cells_escape_markdown_marks(text: str, shown: str) -> None:
    assert cell(text) == shown


def test_without_lists_there_is_nothing_to_describe() -> None:
    popularity = ItemPopularity(pa.array(["a"]), np.array([6]))
    empty = ListFacts(QUALITY_SCHEMA.empty_table(), OVERLAP_SCHEMA.empty_table(), None, popularity)
    assert list_section(empty) == "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."


def test_trend_section_has_a_row_per_day_newest_first_and_shows_gaps() -> None:
    days = [
        ("2026-03-01", [total_row(hit_rate=0.25), total_row("popularity", hit_rate=0.125), total_row("merged", hit_rate=0.75)]),
        (
            "2026-03-02",
            [total_row(hit_rate=0.5), total_row(scope="discovery", hit_rate=0.25), total_row(scope="unseen", hit_rate=0.125)],
        ),
    ]
    trend = trend_table([(day, pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)) for day, rows in days], 10)
    assert trend_section(trend, 10).splitlines()[-4:] == [
        "| day | users | **merged list** | **two-tower model** | **two-tower model**, discovery | **two-tower model**, unseen "
        "| popularity |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 2026-03-02 | 40 | - | 0.500 [0.450, 0.550] | 0.250 [0.200, 0.300] | 0.125 [0.075, 0.175] | - |",
        "| 2026-03-01 | 40 | 0.750 [0.700, 0.800] | 0.250 [0.200, 0.300] | - | - | 0.1250 |",
    ]
    assert trend_section(trend.slice(0, 0), 10).endswith("so there is no trend.")


def row(scorer: str, scope: str, rate: float, population: str = "warm", k: int = 200) -> dict[str, Any]:
    numbers = dict.fromkeys(TOTAL_SCHEMA.names, 0)
    text = {"scorer": scorer, "scope": scope, "population": population}
    return {**numbers, **text, "k": k, "hit_rate": rate, "ci_low": rate - 0.01, "ci_high": rate + 0.01, "truth_count": 1234}


def gain(scorer: str, against: str, scope: Scope, found: float, low: float, high: float) -> Gain:
    return Gain(scorer, against, scope, 200, found, low, high, counted_population(scope))


ROWS = [
    row("model", "all", 0.296),
    row("model", "all", 0.1, k=10),
    row("model", "unseen", 0.132),
    row("model", "cold", 0.04, "all"),
    row("model", "cold", 0.05, "not_warm"),
    row("merged", "all", 0.474),
    {**row("merged", "all", 0.3, "all"), "truth_count": 2468},
    row("recent_popularity", "all", 0.32, "all"),
    row("own_history_all", "all", 0.452),
    row("popularity", "unseen", 0.108),
    row("ease", "unseen", 0.12),
    row("category_popularity", "cold", 0.01, "all"),
]
GAINS = [
    gain("model", "own_history_all", Scope.ALL, -0.156, -0.17, -0.14),
    gain("model", "ease", Scope.UNSEEN, 0.012, -0.002, 0.026),
    gain("model", "category_popularity", Scope.COLD, 0.03, 0.01, 0.05),
]
MERGED = [
    gain("merged", "own_history_all", Scope.ALL, 0.022, 0.014, 0.03),
    Gain("merged", "recent_popularity", Scope.ALL, 200, -0.02, -0.03, -0.01, Population.ALL),
]
CHANNELS = [gain("merged", "merged_without_vectors", Scope.ALL, 0.002, -0.001, 0.005)]


def segments_of_both(*rows: tuple[str, int, float]) -> dict[str, pa.Table]:
    """Returns the segments of the merged list, and of the model, which finds nothing."""
    named = [dict(zip(("value", "truth_count", "hit_rate"), row, strict=True)) for row in rows]
    whole = [
        {**dict.fromkeys(SEGMENT_SCHEMA.names, 0), "segment": "activity", "ci_low": 0.1, "ci_high": 0.4, **row} for row in named
    ]
    model = [{**row, "hit_rate": 0.0} for row in whole]
    return {name: pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA) for name, rows in (("merged", whole), ("model", model))}


def total(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)


def test_the_most_important_figure_comes_first() -> None:
    text = headline(
        total(ROWS), [*MERGED, *GAINS], CHANNELS, segments_of_both(("1-9", 200, 0.2), ("0", 40, 0.1), ("10-29", 300, 0.3))
    )
    title, _, *lines = text.splitlines()
    assert title == "**The figures of the day, the most important first**"
    assert lines[0] == "|  | hit_rate@200 | items to find | compared with | gain over the best baseline |"
    assert [line.split(" | ")[0].strip("| *") for line in lines[2:7]] == [
        "merged list, all items",
        "merged list, all users and items of the day, 50% of these not warm",
        "vectors alone, items new to the user, its own history left out",
        "vectors alone, all items: the figure of the reference solution",
        "vectors alone, cold items among themselves",
    ]
    assert lines[2].endswith("| own history, all days 0.452 | +0.0220 [+0.0140, +0.0300], ahead |")
    assert lines[3].endswith("| 2,468 | recent popularity 0.320 | -0.0200 [-0.0300, -0.0100], behind |")
    assert lines[4].endswith("| popularity 0.108, EASE 0.120 | +0.0120 [-0.0020, +0.0260], not distinguishable |")
    assert "**0.040 [0.030, 0.050]** | 1,234 | popularity by category 0.010 |" in lines[6]
    assert lines[8:] == [
        "Where it looks worst:",
        "",
        "- Two-tower model, all items: behind the best baseline, own history, all days, by -0.1560 [-0.1700, -0.1400] at k = 200.",
        "- The merged list would find nearly as much without the vectors: they are worth +0.0020 [-0.0010, +0.0050].",
        "- Merged list, segment activity 1-9: 0.200 [0.100, 0.400] of 200 items to find.",
    ]


def test_what_is_not_there_is_left_out() -> None:
    text = headline(total([row("model", "unseen", 0.132)]), [], [], segments_of_both())
    assert (
        "| **vectors alone, items new to the user, its own history left out** | **0.132 [0.122, 0.142]** | 1,234 | - | - |"
        in text
    )
    assert "worst" not in text
    harmful = [gain("merged", "merged_without_vectors", Scope.ALL, -0.01, -0.02, -0.001)]
    text = headline(total([row("model", "unseen", 0.132)]), [], harmful, segments_of_both())
    assert "- The merged list would find more without the vectors: they are worth -0.0100 [-0.0200, -0.0010]." in text
    assert headline(total([row("ease", "all", 0.3)]), [], [], segments_of_both()) == "No known user has a known item to find."
