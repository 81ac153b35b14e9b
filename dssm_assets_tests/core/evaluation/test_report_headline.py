"""The headline: its figures in their order, what they are compared with, what looks worst."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, Gain
from dssm_assets.core.evaluation.report import headline
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA


def row(scorer: str, scope: str, rate: float, population: str = "warm", k: int = 200) -> dict[str, Any]:
    numbers = dict.fromkeys(TOTAL_SCHEMA.names, 0)
    text = {"scorer": scorer, "scope": scope, "population": population}
    return {**numbers, **text, "k": k, "hit_rate": rate, "ci_low": rate - 0.01, "ci_high": rate + 0.01, "truth_count": 1234}


def gain(scorer: str, against: str, scope: Scope, found: float, low: float, high: float) -> Gain:
    return Gain(scorer, against, scope, Population.WARM, 200, found, low, high)


ROWS = [
    row("model", "all", 0.296),
    row("model", "all", 0.1, k=10),
    row("model", "unseen", 0.132),
    row("model", "cold", 0.04, "all"),
    row("model", "cold", 0.05, "cold"),
    row("merged", "all", 0.474),
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
MERGED = [gain("merged", "own_history_all", Scope.ALL, 0.022, 0.014, 0.03)]
CHANNELS = [gain("merged", "merged_without_vectors", Scope.ALL, 0.002, -0.001, 0.005)]


def segments(*rows: tuple[str, int, float]) -> dict[str, pa.Table]:
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
    text = headline(total(ROWS), [*MERGED, *GAINS], CHANNELS, segments(("1-9", 200, 0.2), ("0", 40, 0.1), ("10-29", 300, 0.3)))
    title, _, *lines = text.splitlines()
    assert title == "**The figures of the day, the most important first**"
    assert lines[0] == "|  | hit_rate@200 | items to find | compared with | gain over the best baseline |"
    assert [line.split(" | ")[0].strip("| *") for line in lines[2:6]] == [
        "merged list, all items",
        "vectors alone, items new to the user, its own history left out",
        "vectors alone, all items: the figure of the reference solution",
        "vectors alone, cold items among themselves",
    ]
    assert lines[2].endswith("| own history, all days 0.452 | +0.0220 [+0.0140, +0.0300], ahead |")
    assert lines[3].endswith("| popularity 0.108, EASE 0.120 | +0.0120 [-0.0020, +0.0260], not distinguishable |")
    assert "**0.040 [0.030, 0.050]** | 1,234 | popularity by category 0.010 |" in lines[5]
    assert lines[7:] == [
        "Where it looks worst:",
        "",
        "- Two-tower model, all items: behind the best baseline, own history, all days, by -0.1560 [-0.1700, -0.1400] at k = 200.",
        "- The merged list would find nearly as much without the vectors: they are worth +0.0020 [-0.0010, +0.0050].",
        "- Merged list, segment activity 1-9: 0.200 [0.100, 0.400] of 200 items to find.",
    ]


def test_what_is_not_there_is_left_out() -> None:
    text = headline(total([row("model", "unseen", 0.132)]), [], [], segments())
    assert (
        "| **vectors alone, items new to the user, its own history left out** | **0.132 [0.122, 0.142]** | 1,234 | - | - |"
        in text
    )
    assert "worst" not in text
    assert headline(total([row("ease", "all", 0.3)]), [], [], segments()) == "No known user has a known item to find."
