"""The trend picks the right rows of every day."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.evaluation.totals import TOTAL_SCHEMA
from dssm_assets.core.evaluation.trend import TREND_SCHEMA, trend_table
from dssm_assets_tests.core.evaluation.worlds import total_row

DAYS = [
    ("2026-03-01", [total_row(hit_rate=0.1, k=10), total_row(hit_rate=0.2, k=5), total_row(population="cold", k=10)]),
    ("2026-03-02", [total_row(k=5)]),
    ("2026-03-04", [total_row("popularity", "discovery", hit_rate=0.3, k=10), total_row(hit_rate=0.4, k=10)]),
]


def test_one_k_one_population_every_scope_and_scorer_in_the_days_order() -> None:
    totals = [(day, pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)) for day, rows in DAYS]
    trend = trend_table(iter(totals), 10)
    assert trend.schema == TREND_SCHEMA
    assert [(row["day"], row["scope"], row["scorer"], row["hit_rate"]) for row in trend.to_pylist()] == [
        ("2026-03-01", "all", "model", 0.1),
        ("2026-03-04", "discovery", "popularity", 0.3),
        ("2026-03-04", "all", "model", 0.4),
    ]


def test_no_days_no_rows() -> None:
    assert trend_table([], 10).equals(TREND_SCHEMA.empty_table())
