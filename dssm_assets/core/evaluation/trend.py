"""The trend: the hit rates of the model and of the baselines over the last evaluation days.

Belongs here: picking those rows out of the totals of each day. Does not belong here: reading the days, drawing them
(`trend_chart.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER
from dssm_assets.core.evaluation.truth import Population

DAY = "day"
TREND_COLUMNS = (SCOPE, SCORER, "hit_rate", "ci_low", "ci_high", "users")
TREND_SCHEMA = pa.schema(
    [(name, pa.string()) for name in (DAY, SCOPE, SCORER)]
    + [(name, pa.float64()) for name in ("hit_rate", "ci_low", "ci_high")]
    + [("users", pa.int64())]
)


def trend_table(totals: Iterable[tuple[str, pa.Table]], k: int, population: Population = Population.WARM) -> pa.Table:
    """Returns day, scope, scorer, hit_rate, ci_low, ci_high, users at one k; days in the order in which they come.

    A day that was scored at other k, or that has nobody in the population, has no rows: a gap is shown as a gap.

    Args:
        totals: (YYYY-MM-DD, total_hit_rate of that day); one is held at a time.
        k: cut-off.
        population: which pairs count.
    """
    parts = [TREND_SCHEMA.empty_table()]
    for day, total in totals:
        is_wanted = pc.and_(pc.equal(total.column("k"), k), pc.equal(total.column(POPULATION), str(population)))
        rows = total.filter(is_wanted).select(TREND_COLUMNS)
        days = pa.array([day] * rows.num_rows, pa.string())
        parts.append(rows.add_column(0, DAY, days).cast(TREND_SCHEMA))
    return pa.concat_tables(parts).combine_chunks()
