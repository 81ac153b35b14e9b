"""Rates from hit counts: hit rates with intervals, the gain of one scorer over another, the trend over days.

A cell is one scope in one population (`hits.py`).

Shapes: U users of a cell, S scorers, K number of cut-offs, R resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.evaluation import evaluation_tables as tables
from dssm_assets.core.names import Population, Scope, counted_population

Floats = NDArray[np.float64]
NDCG_STEPS = 1 << 30
"""NDCG is rounded to multiples of 1 / NDCG_STEPS, so that its sums are exact for up to eight million users."""
MAX_WEIGHTS = 4_000_000
"""Bootstrap weights (resamples times users) in memory at once."""
TAILS = (2.5, 97.5)


def resampled_sums(values: IntArray | Floats, samples: int, seed: int) -> Floats:
    """Returns the column sums over R multinomial resamples of the rows, float64 [R, C].

    The resamples depend only on the seed and the number of rows. So all columns, and all calls with the same users, use the same
    resamples. Sums of whole numbers below 2**53 are exact in float64, whatever their order and the number of threads.

    Args:
        values: whole numbers [U, C], at least one row.
        seed: seed of the generator (PCG64).
    """
    num_users = len(values)
    rng = np.random.Generator(np.random.PCG64(seed))
    wide = np.asarray(values, np.float64)
    step = max(1, MAX_WEIGHTS // num_users)
    parts = []
    for start in range(0, samples, step):
        resamples = (rng.integers(num_users, size=num_users) for _ in range(min(step, samples - start)))
        weights = [np.bincount(users, minlength=num_users) for users in resamples]
        parts.append(np.array(weights, np.float64) @ wide)
    return np.concatenate(parts)


def interval(resampled: NDArray[Any]) -> tuple[Floats, Floats]:
    """Returns the 2.5th and 97.5th percentiles over the resamples (axis 0)."""
    low, high = np.percentile(resampled, TAILS, axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def is_sure_gain(gain: IntArray | Floats) -> bool:
    """Returns whether the sum of independent differences in hits exceeds twice its standard error."""
    return bool(gain.sum() > 2 * np.sqrt(np.square(gain).sum()))


HitCells: TypeAlias = Mapping[tuple[str, str], Mapping[str, pa.Table]]
"""Scope and population -> scorer (sorted by name) -> its rows: user_id (ascending), truth_count, hits_{k}, ndcg_{k}."""
_KEYS = (SCORER, SCOPE, POPULATION)


def split_cells(hit_counts: pa.Table) -> HitCells:
    """Splits hit counts into cells: slices (not copies) of consecutive rows with the same keys.

    Args:
        hit_counts: columns scorer, scope, population, user_id, truth_count, hits_{k}, ndcg_{k}; sorted by the first four.
    """
    runs: dict[tuple[str, ...], list[pa.RecordBatch]] = {}
    for batch in hit_counts.to_batches():
        columns = [batch.column(name) for name in _KEYS]
        ends = np.unique(np.concatenate([pc.run_end_encode(column).run_ends for column in columns]))
        for first, end in pairwise([0, *ends.tolist()]):
            key = tuple(column[first].as_py() for column in columns)
            runs.setdefault(key, []).append(batch.slice(first, end - first))
    cells: dict[tuple[str, str], dict[str, pa.Table]] = {}
    for scorer, scope, population in sorted(runs):
        cells.setdefault((scope, population), {})[scorer] = pa.Table.from_batches(runs[scorer, scope, population])
    return cells


def sum_hits(hit_counts: HitCells, ks: Sequence[int], bootstrap_samples: int, seed: int) -> pa.Table:
    """Returns the rates, one row per scorer, scope, population and k, sorted by these.

    hit_rate@k = sum over users of |topk & truth| / sum over users of |truth| (micro: each item to find counts once);
    user_recall@k = mean over users of |topk & truth| / |truth|; user_hit_rate@k = fraction of users with at least one hit;
    ndcg@k = mean over users of NDCG (`hits.user_ndcg`). ci_low and ci_high bound hit_rate, ndcg_ci_low and ndcg_ci_high
    ndcg: a 95% percentile bootstrap over users. Scorers of the same users get the same resamples.

    Who counts: users with truth in the cell. A user without a vector counts too, with no hits. A user without truth in the
    cell does not count. A cell without users has no row.

    By hand: u1 has 4 items to find and 1 is found, u2 has 1 and it is found. hit_rate = (1 + 1) / (4 + 1) = 0.4, user_recall
    = (1/4 + 1/1) / 2 = 0.625, user_hit_rate = 2 / 2 = 1. The resamples are {u1, u1} 2/8, {u1, u2} 2/5 and {u2, u2} 2/2 with
    probabilities 1/4, 1/2, 1/4, so the interval is [0.25, 1].

    Args:
        hit_counts: cells from `split_cells`.
        ks: cut-offs; each needs its columns hits_{k} and ndcg_{k}.

    Raises:
        InputError: there are no rows at all, and a rate over no users is not a number.
        SchemaError: the columns of a cut-off are missing.
    """
    rows: list[dict[str, Any]] = []
    for scope, population in product(Scope, Population):
        cell = hit_counts.get((scope, population), {})
        for num_users in {len(of_scorer) for of_scorer in cell.values()}:  # resamples depend on the number of users alone
            group = {name: of_scorer for name, of_scorer in cell.items() if len(of_scorer) == num_users}
            rows += _rows(group, ks, bootstrap_samples, seed, scope=scope, population=population)
    if not rows:
        got = "no user with truth"
        raise InputError(Fault("hit_counts", "at least one row", got, "check that the evaluation day has positive events"))
    rows.sort(key=lambda row: (row[SCORER], row[SCOPE], row[POPULATION], row["k"]))
    return pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)


TOTAL_SCHEMA = tables.TOTAL_HIT_RATE.schema


Rows: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Scorer -> its row of total_hit_rate at one k, in one scope and population."""


def rows_of_cell(
    total: pa.Table, scope: Scope | str, k: int, population: Population | None = None
) -> dict[str, dict[str, Any]]:
    """Returns scorer -> its row of total_hit_rate for one scope and k. Without a population, it takes the population reported for the scope."""
    counted = str(population or counted_population(Scope(scope)))
    cell = (pc.field(SCOPE) == str(scope)) & (pc.field(POPULATION) == counted) & (pc.field("k") == k)
    return {row[SCORER]: row for row in total.filter(cell).to_pylist()}


def not_warm_frac(total: pa.Table, scope: Scope, k: int, scorer: str) -> float:
    """Returns the fraction of truth pairs whose user or item is not warm, 0 without pairs."""
    cells = (rows_of_cell(total, scope, k, population) for population in (Population.WARM, Population.ALL))
    warm, whole = (rows[scorer][TRUTH_COUNT] if scorer in rows else 0 for rows in cells)
    return 1 - warm / whole if whole else 0.0


@dataclass(frozen=True)
class Gain:
    """The difference of two scorers' hit_rate@k for the same users, with a 95% interval, in one scope and population."""

    scorer: str
    against: str
    scope: Scope
    k: int
    gain: float
    ci_low: float
    ci_high: float
    population: Population = Population.WARM

    @property
    def position(self) -> str:
        """Returns the position of the scorer in words: ahead of, behind, or not distinguishable from the other."""
        return "ahead of" if self.ci_low > 0 else "behind" if self.ci_high < 0 else "not distinguishable from"


def paired_gain(
    hit_counts: HitCells,
    *,
    scorer: str,
    against: str,
    scope: Scope,
    k: int,
    samples: int,
    seed: int,
    times: float = 1.0,
    population: Population | None = None,
) -> Gain:
    """Returns hit_rate(scorer) - times * hit_rate(against), with a bootstrap interval. Both use the same resamples of users.

    Without a population, it takes the population reported for the scope. Parts of merged lists (`is_part`) may be scored for a sample of the
    users only. In this case both scorers are compared for the users of the sample.

    By hand: of 100 items to find, one scorer finds 50 and the other 40, so the gain is 0.1. With `times` 1.5 the gain is
    0.5 - 1.5 * 0.4 = -0.1.

    Raises:
        InputError: one of the two scorers has no users in the cell, or `against` was scored for other users.
    """
    population = population or counted_population(scope)
    cell, where = hit_counts.get((scope, population), {}), f"hit_counts, {scope}/{population}"
    for name in (scorer, against):
        if name not in cell:
            remedy = "compare scorers of one run, in a cell that has users"
            raise InputError(Fault(where, f"rows of scorer {name}", f"rows of {', '.join(sorted(cell)) or 'none'}", remedy))
    first, second = cell[scorer], cell[against]
    if tables.is_part(against) and len(second) < len(first):
        first = first.filter(pc.is_in(first.column(USER_ID), combine_chunks(second.column(USER_ID))))
    if not first.column(USER_ID).equals(second.column(USER_ID)):
        raise InputError(
            Fault(where, f"{scorer} and {against} over the same users", "different users", "score both in one run")
        )
    values = np.stack(
        [integers(first, TRUTH_COUNT), integers(first, tables.hits_column(k)), integers(second, tables.hits_column(k))], axis=1
    )
    sums = resampled_sums(values, samples, seed)
    low, high = interval((sums[:, 1] - times * sums[:, 2]) / sums[:, 0])
    truth, hits, hits_against = values.sum(axis=0)
    return Gain(scorer, against, scope, k, float((hits - times * hits_against) / truth), float(low), float(high), population)


def channel_gains(hit_counts: HitCells, total: pa.Table, *, k: int, samples: int, seed: int) -> list[Gain]:
    """Returns each channel's worth: the merged list's gain over the merged list without this channel (scope all, warm)."""
    gain = partial(paired_gain, hit_counts, scorer=tables.MERGED, scope=Scope.ALL, k=k, samples=samples, seed=seed)
    scored = sorted(rows_of_cell(total, Scope.ALL, k))
    return [gain(against=name) for name in scored if name.startswith(tables.MERGED_WITHOUT)]


def gains_over_best(
    hit_counts: HitCells, total: pa.Table, *, k: int, samples: int, seed: int, scorer: str = tables.MODEL
) -> list[Gain]:
    """Returns a scorer's gain over the best baseline, for each scope with users, and then for all users and items."""
    gain, gains = partial(paired_gain, hit_counts, scorer=scorer, k=k, samples=samples, seed=seed), []
    for scope, population in (*((scope, counted_population(scope)) for scope in Scope), (Scope.ALL, Population.ALL)):
        rows = rows_of_cell(total, scope, k, population)
        best = best_baseline(rows)
        if best is not None and scorer in rows:
            gains.append(gain(against=best, scope=scope, population=population))
    return gains


def baselines_of(rows: Iterable[str]) -> list[str]:
    """Returns the baselines among scorers, sorted by name: all but the model and the lists made from channels."""
    return sorted(name for name in rows if name != tables.MODEL and not tables.is_of_channels(name))


def best_baseline(rows: Rows, among: Collection[str] | None = None) -> str | None:
    """Returns the baseline with the highest hit rate, ties by name. None if there is no baseline.

    Args:
        rows: the rates of one scope and population, from `rows_of_cell`.
        among: the baselines to choose from. None: all.
    """
    names = [name for name in baselines_of(rows) if among is None or name in among]
    return max(names, key=lambda name: rows[name]["hit_rate"], default=None)


def integers(rows: pa.Table, column: str) -> IntArray:
    """Returns a column of whole numbers as int64."""
    return np.asarray(rows.column(column).to_numpy().astype(np.int64))


def _rows(
    group: dict[str, pa.Table], ks: Sequence[int], samples: int, seed: int, *, scope: Scope, population: Population
) -> list[dict[str, Any]]:
    wanted = [column(k) for column in (tables.hits_column, tables.ndcg_column) for k in ks]
    missing = sorted({name for rows in group.values() for name in wanted if name not in rows.column_names})
    if missing:
        remedy = "materialize hit_counts of this day again"
        raise SchemaError(Fault("hit_counts", f"columns {', '.join(wanted)}", f"no {', '.join(missing)}", remedy))
    cuts = [(name, k) for name in group for k in ks]
    num_users = len(next(iter(group.values())))
    # Columns: items to find for each scorer, then hits at each k, then NDCG in steps at each k. Sums of whole numbers are exact.
    columns = [(name, TRUTH_COUNT) for name in group]
    columns += [(name, column(k)) for column in (tables.hits_column, tables.ndcg_column) for name, k in cuts]
    values, ends = np.empty((len(columns), num_users)), (len(group), len(group) + len(cuts))
    for row, (name, column) in zip(values, columns, strict=True):
        row[:] = group[name].column(column)
    truth_rows, hits, steps = np.split(values, ends)
    truth, ndcg = dict(zip(group, truth_rows, strict=True)), steps.mean(axis=1)
    np.rint(np.multiply(steps, NDCG_STEPS, out=steps), out=steps)
    truth_sums, hit_sums, step_sums = np.split(resampled_sums(values.T, samples, seed), ends, axis=1)
    low, high = interval(hit_sums / truth_sums.repeat(len(ks), axis=1))
    ndcg_low, ndcg_high = interval(step_sums / (NDCG_STEPS * num_users))
    return [
        {
            SCORER: name,
            SCOPE: str(scope),
            POPULATION: str(population),
            "k": k,
            "hit_rate": float(hits[i].sum() / truth[name].sum()),
            "ci_low": float(low[i]),
            "ci_high": float(high[i]),
            "user_recall": float((hits[i] / truth[name]).mean()),
            "user_hit_rate": float((hits[i] > 0).mean()),
            "ndcg": float(ndcg[i]),
            "ndcg_ci_low": float(ndcg_low[i]),
            "ndcg_ci_high": float(ndcg_high[i]),
            "users": num_users,
            "hits": int(hits[i].sum()),
            TRUTH_COUNT: int(truth[name].sum()),
        }
        for i, (name, k) in enumerate(cuts)
    ]


DAY = "day"
TREND_COLUMNS = (SCOPE, SCORER, "hit_rate", "ci_low", "ci_high", "users")
TREND_SCHEMA = pa.schema([(DAY, pa.string()), *(TOTAL_SCHEMA.field(name) for name in TREND_COLUMNS)])


def trend_table(totals: Iterable[tuple[str, pa.Table]], k: int) -> pa.Table:
    """Returns day, scope, scorer, hit_rate, ci_low, ci_high, users at one k; days in the given order.

    A day without known users, or scored only at other k, has no rows. Charts show a gap there.

    Args:
        totals: pairs of a day (YYYY-MM-DD) and its total_hit_rate. Only one table is in memory at a time.
    """
    parts = [TREND_SCHEMA.empty_table()]
    for day, total in totals:
        rows = total.filter((pc.field("k") == k) & (pc.field(POPULATION) == str(Population.WARM))).select(TREND_COLUMNS)
        parts.append(rows.add_column(0, DAY, pa.repeat(day, rows.num_rows)).cast(TREND_SCHEMA))
    return pa.concat_tables(parts).combine_chunks()
