"""The sections say what the numbers say, and no value of the data breaks a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.evaluation.item_popularity import ItemPopularity
from dssm_assets.core.evaluation.list_quality import OVERLAP_SCHEMA, QUALITY_SCHEMA
from dssm_assets.core.evaluation.markdown import cell
from dssm_assets.core.evaluation.report_sections import list_facts, list_section, segment_report, segment_section, trend_section
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA
from dssm_assets.core.evaluation.totals import TOTAL_SCHEMA
from dssm_assets.core.evaluation.trend import trend_table
from dssm_assets_tests.core.evaluation.worlds import total_row


def segments(*rows: tuple[str, str]) -> pa.Table:
    numbers = {"users": 1200, "hits": 3, "truth_count": 12, "hit_rate": 0.25, "ci_low": 0.125, "ci_high": 0.5}
    return pa.Table.from_pylist([{"segment": s, "value": v, **numbers} for s, v in rows], schema=SEGMENT_SCHEMA)


def test_segments_have_a_table_each() -> None:
    text = segment_section(segments(("age_group", "25-34"), ("age_group", "a|b"), ("tenure", "new")), 200)
    assert "| age\\_group" not in text
    assert "| age group | users | items to find | hits | hit_rate@200 |\n| --- | ---: | ---: | ---: | ---: |\n" in text
    assert "| 25-34 | 1,200 | 12 | 3 | 0.250 [0.125, 0.500] |\n| a\\|b | 1,200 |" in text
    assert text.count("| --- |") == 2
    assert segment_report("2026-03-01", segments(("tenure", "new")), 5).startswith(
        "# Hit rate by segment on 2026-03-01\n\n## By"
    )
    assert "No segment has users." in segment_section(segments(), 200)


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
def test_cells_take_the_datas_marks_literally(text: str, shown: str) -> None:
    assert cell(text) == shown


POPULARITY = ItemPopularity(pa.array(["a", "b", "c"]), np.array([6, 2, 0]))
QUALITY = pa.Table.from_pylist(
    [{"k": 5, "users": 2469, "coverage": 0.0625, "popularity_bias": 0.5, "novelty": 9.125, "mean_length": 5.0}],
    schema=QUALITY_SCHEMA,
)


def test_the_lists_with_and_without_an_earlier_day() -> None:
    overlap = pa.Table.from_pylist([{"k": 5, "users": 31, "kept": 0.75, "jaccard": 0.6}], schema=OVERLAP_SCHEMA)
    text = list_section(list_facts(QUALITY, overlap, "2026-02-27", POPULARITY))
    assert "| 5 | 6.25% | 50.0% | 9.12 | 75.0% | 0.600 |" in text
    assert "lists for 2,469 evaluated users" in text
    assert "by the 1 most taken items (1% of those taken in the window), which were 75.0% of what was taken" in text
    assert "Kept since 2026-02-27: " in text
    assert "over 31 users with a list on both days" in text
    nobody = OVERLAP_SCHEMA.empty_table()
    for day in (None, "2026-02-27"):
        alone = list_section(list_facts(QUALITY, nobody, day, POPULARITY))
        assert "| 5 | 6.25% | 50.0% | 9.12 | - | - |" in alone
        assert "There is no earlier evaluation day to compare the lists with." in alone
    empty = list_facts(QUALITY_SCHEMA.empty_table(), nobody, None, POPULARITY)
    assert list_section(empty) == "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."


def test_the_trend_has_a_row_per_day_the_newest_first_and_shows_gaps() -> None:
    days = [
        ("2026-03-01", [total_row(hit_rate=0.25), total_row("popularity", hit_rate=0.125)]),
        ("2026-03-02", [total_row(hit_rate=0.5), total_row(scope="discovery", hit_rate=0.25)]),
    ]
    trend = trend_table([(day, pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)) for day, rows in days], 10)
    assert trend_section(trend, 10).splitlines()[-4:] == [
        "| day | users | **model** | **model**, discovery | popularity |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| 2026-03-02 | 40 | 0.500 [0.450, 0.550] | 0.250 [0.200, 0.300] | - |",
        "| 2026-03-01 | 40 | 0.250 [0.200, 0.300] | - | 0.1250 |",
    ]
    assert trend_section(trend.slice(0, 0), 10).endswith("no day has any, so there is no trend.")
