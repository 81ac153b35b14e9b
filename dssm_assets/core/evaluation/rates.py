"""The numbers of a day: hit rates with their intervals, and how far one scorer is ahead of another.

Belongs here: the reduction of hit counts. Does not belong here: counting (`hit_counts.py`), words (`report.py`).

Shapes: U users of a cell, S scorers, K number of cut-offs, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.columns import USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER, TRUTH_COUNT, hits_column
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.truth import Population, Scope

Floats = NDArray[np.float64]
CELLS = 4_000_000
"""Weights (resamples times users) held at once."""
TAILS = (2.5, 97.5)


def resampled_sums(values: IntArray, samples: int, seed: int) -> Floats:
    """Returns float64 [R, C]: the column sums over R multinomial resamples of the rows.

    The resamples depend on the seed and the number of rows alone, so columns of one call, and calls over the same users,
    are paired. Sums of whole numbers below 2**53 are exact in float64: their order, and so the threads, cannot change them.

    Args:
        values: int64 [U, C], at least one row.
        samples: R.
        seed: of the generator (PCG64).
    """
    num_users = len(values)
    rng = np.random.Generator(np.random.PCG64(seed))
    wide = values.astype(np.float64)
    step = max(1, CELLS // num_users)
    parts = []
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = rng.integers(num_users, size=(size, num_users))
        drawn += np.arange(size)[:, None] * num_users
        weights = np.bincount(drawn.ravel(), minlength=size * num_users).reshape(size, num_users)
        parts.append(weights.astype(np.float64) @ wide)
    return np.concatenate(parts)


def interval(resampled: NDArray[Any]) -> tuple[Floats, Floats]:
    """Returns the 2.5 and the 97.5 percentile over the resamples (axis 0)."""
    low, high = np.percentile(resampled, TAILS, axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


class Cells(Protocol):
    """Hit counts that are read a cell at a time."""

    @property
    def num_rows(self) -> int:
        """Returns the rows of all cells."""

    def cell(self, scope: Scope, population: Population) -> dict[str, pa.Table]:
        """Returns scorer -> its rows of a cell (user_id, truth_count, hits_{k}), for scorers that have any."""


def total_hit_rate(hit_counts: pa.Table | Cells, ks: Sequence[int], bootstrap_samples: int, seed: int) -> pa.Table:
    """Returns one row per scorer, scope, population and k, sorted by these; cells without users have no row.

    hit_rate@k = sum over users of |topk & truth| / sum over users of |truth| (micro: a user counts by how much it took);
    user_recall@k = mean over users of |topk & truth| / |truth|; user_hit_rate@k = share of users with at least one hit.
    Only users with truth in the cell count. ci_low and ci_high bound hit_rate: a 95% percentile bootstrap over users, with
    the same resamples for all scorers that were asked for the same users.

    By hand: u1 took 4 items and 1 was found, u2 took 1 and it was found. hit_rate = (1 + 1) / (4 + 1) = 0.4, user_recall =
    (1/4 + 1/1) / 2 = 0.625, user_hit_rate = 2 / 2 = 1. The resamples are {u1, u1} 2/8, {u1, u2} 2/5 and {u2, u2} 2/2 with
    chances 1/4, 1/2, 1/4, so the interval is [0.25, 1].

    Args:
        hit_counts: scorer, scope, population, user_id, truth_count, hits_{k}; or its cells, of which one is held at a time.
        ks: cut-offs; each needs its column hits_{k}.
        bootstrap_samples: R.
        seed: of the resamples.

    Raises:
        InputError: if there are no rows at all: no number is better than a number over nobody.
    """
    if not hit_counts.num_rows:
        got = "no user with truth"
        raise InputError(Fault("hit_counts", "at least one row", got, "check that the evaluation day has positive events"))
    rows: list[dict[str, Any]] = []
    for scope in sorted(Scope):
        for population in sorted(Population):
            for group in _paired_groups(_cell(hit_counts, scope, population)):
                rows += _rows(group, ks, bootstrap_samples, seed, scope=scope, population=population)
    rows.sort(key=lambda row: (row[SCORER], row[SCOPE], row[POPULATION], row["k"]))
    return pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)


TOTAL_SCHEMA = pa.schema(
    [(name, pa.string()) for name in (SCORER, SCOPE, POPULATION)]
    + [("k", pa.int64())]
    + [(name, pa.float64()) for name in ("hit_rate", "ci_low", "ci_high", "user_recall", "user_hit_rate")]
    + [(name, pa.int64()) for name in ("users", "hits", TRUTH_COUNT)]
)


@dataclass(frozen=True)
class Gain:
    """How far a scorer's hit_rate@k is ahead of another's over the same users, with its 95% interval."""

    scorer: str
    against: str
    scope: Scope
    population: Population
    k: int
    gain: float
    ci_low: float
    ci_high: float


def paired_gain(
    hit_counts: pa.Table | Cells,
    *,
    scorer: str,
    against: str,
    scope: Scope,
    population: Population,
    k: int,
    samples: int,
    seed: int,
) -> Gain:
    """Returns the difference of two hit rates with a paired bootstrap interval: both see the same resampled users.

    Raises:
        InputError: if one of the two has no users in the cell or they were asked for different users.
    """
    cell = _cell(hit_counts, scope, population)
    where = f"hit_counts, {scope}/{population}"
    for name in (scorer, against):
        if name not in cell:
            remedy = "compare scorers of one run in a cell that has users"
            raise InputError(Fault(where, f"rows of scorer {name}", f"rows of {', '.join(sorted(cell)) or 'none'}", remedy))
    first, second = cell[scorer], cell[against]
    if not first.column(USER_ID).equals(second.column(USER_ID)):
        raise InputError(
            Fault(where, f"{scorer} and {against} over the same users", "different users", "score both in one run")
        )
    values = np.stack(
        [_integers(first, TRUTH_COUNT), _integers(first, hits_column(k)), _integers(second, hits_column(k))], axis=1
    )
    sums = resampled_sums(values, samples, seed)
    low, high = interval((sums[:, 1] - sums[:, 2]) / sums[:, 0])
    truth, ours, theirs = values.sum(axis=0)
    return Gain(scorer, against, scope, population, k, float((ours - theirs) / truth), float(low), float(high))


def gains_over_best(hit_counts: pa.Table | Cells, total: pa.Table, *, k: int, samples: int, seed: int) -> list[Gain]:
    """Returns, for warm pairs of each scope that has users, the model's gain over the baseline that is best there."""
    gains = []
    for scope in Scope:
        rows = [
            row for row in total.to_pylist() if row[SCOPE] == scope and row[POPULATION] == Population.WARM and row["k"] == k
        ]
        baselines = [row for row in rows if row[SCORER] != ScorerName.MODEL]
        others = sorted(baselines, key=lambda row: (-row["hit_rate"], row[SCORER]))
        if others and len(others) < len(rows):
            gains.append(
                paired_gain(
                    hit_counts,
                    scorer=ScorerName.MODEL,
                    against=others[0][SCORER],
                    scope=scope,
                    population=Population.WARM,
                    k=k,
                    samples=samples,
                    seed=seed,
                )
            )
    return gains


def _cell(hit_counts: pa.Table | Cells, scope: Scope, population: Population) -> dict[str, pa.Table]:
    """Returns scorer -> its rows of the cell, sorted by user, for scorers that have any."""
    if isinstance(hit_counts, pa.Table):
        found = _cell_of_table(hit_counts, scope, population)
    else:
        found = hit_counts.cell(scope, population)
    return {name: found[name].sort_by(USER_ID).combine_chunks() for name in sorted(found)}


def _cell_of_table(hit_counts: pa.Table, scope: Scope, population: Population) -> dict[str, pa.Table]:
    inside = pc.and_(pc.equal(hit_counts.column(SCOPE), str(scope)), pc.equal(hit_counts.column(POPULATION), str(population)))
    rows = hit_counts.filter(inside)
    return {name: rows.filter(pc.equal(rows.column(SCORER), name)) for name in pc.unique(rows.column(SCORER)).to_pylist()}


def _paired_groups(cell: dict[str, pa.Table]) -> list[dict[str, pa.Table]]:
    """Returns the scorers of a cell grouped by the users they were asked for; nearly always one group."""
    groups: list[dict[str, pa.Table]] = []
    for name, rows in cell.items():
        for group in groups:
            if next(iter(group.values())).column(USER_ID).equals(rows.column(USER_ID)):
                group[name] = rows
                break
        else:
            groups.append({name: rows})
    return groups


def _integers(rows: pa.Table, column: str) -> IntArray:
    result: IntArray = rows.column(column).to_numpy().astype(np.int64)
    return result


def _rows(
    group: dict[str, pa.Table], ks: Sequence[int], samples: int, seed: int, *, scope: Scope, population: Population
) -> list[dict[str, Any]]:
    cuts = [(name, k) for name in group for k in ks]
    values = np.stack([column for name in group for column in _columns(group[name], ks)], axis=1)  # [U, S * (1 + K)]
    sums = resampled_sums(values, samples, seed).reshape(samples, len(group), 1 + len(ks))
    low, high = interval(sums[:, :, 1:] / sums[:, :, :1])
    counts = values.reshape(len(values), len(group), 1 + len(ks))
    truth = np.repeat(counts[:, :, :1], len(ks), axis=2).reshape(len(values), -1)
    hits = counts[:, :, 1:].reshape(len(values), -1)
    return [
        {
            SCORER: name,
            SCOPE: str(scope),
            POPULATION: str(population),
            "k": k,
            "hit_rate": float(hits[:, i].sum() / truth[:, i].sum()),
            "ci_low": float(low.ravel()[i]),
            "ci_high": float(high.ravel()[i]),
            "user_recall": float((hits[:, i] / truth[:, i]).mean()),
            "user_hit_rate": float((hits[:, i] > 0).mean()),
            "users": len(values),
            "hits": int(hits[:, i].sum()),
            TRUTH_COUNT: int(truth[:, i].sum()),
        }
        for i, (name, k) in enumerate(cuts)
    ]


def _columns(rows: pa.Table, ks: Sequence[int]) -> list[IntArray]:
    return [_integers(rows, TRUTH_COUNT)] + [_integers(rows, hits_column(k)) for k in ks]
