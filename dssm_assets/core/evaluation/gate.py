"""The gate: whether a day's hit rate is good enough for its model to be shipped.

Two rules, over warm users and items at the largest k. Each fails only if the whole interval is below its limit:

- **baseline**, in each configured scope: the upper bound of the 95% interval of hit_rate(model) - hit_rate(best configured
  baseline), paired over users, is below `baseline_margin`.
- **drop**, scope all: the upper bound of the 95% interval of the model's hit rate is below (1 - max_drop_frac) times the mean rate of
  the last partitions.

A rule that has nothing to compare with (no baseline configured, no items to find in the scope, no earlier partition) passes. A model without a measured hit
rate fails.

Does not belong here: rates and intervals (`rates.py`), stopping a bundle (a blocking check does that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER
from dssm_assets.core.config.evaluation import Gate
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.evaluation.rates import HitCells, paired_gain
from dssm_assets.core.evaluation.scopes import Population, Scope


@dataclass(frozen=True)
class GateReport:
    """The verdict, one sentence with the reason of every rule, and the figures behind it."""

    passed: bool
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rule:
    passed: bool
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def hit_rate_gate(
    hit_counts: pa.Table | HitCells,
    total: pa.Table,
    previous: Mapping[str, pa.Table],
    gate: Gate,
    *,
    k: int,
    samples: int,
    seed: int,
) -> GateReport:
    """Returns whether the day's model may be shipped.

    By hand: the model finds 50 of 100, popularity 60 of 100, and the gain of -0.1 has the interval [-0.2, 0.05]: passes,
    since 0.05 reaches the margin 0. With [-0.2, -0.02] it fails. The mean of the earlier days is 0.8, max_drop_frac 0.25 and
    the model's interval [0.45, 0.58]: fails, since 0.58 < 0.75 * 0.8 = 0.6.

    Args:
        hit_counts: the day's counts per user, as of `hits.count_hits`.
        total: the day's rates, computed from these counts.
        previous: day -> rates of an earlier day; only the last `gate.last_partitions` count.
        gate: the rules.
        k: length of the lists.
        samples: bootstrap resamples.
        seed: of the resamples.

    Raises:
        InputError: if a configured baseline was not scored.
    """
    model = _warm_rows(total, Scope.ALL, k).get(MODEL)
    if model is None:
        return GateReport(False, f"no warm user has a warm item to find, so hit_rate@{k} of the model was not measured")
    rules = [
        *(
            _compare_with_baseline(hit_counts, _warm_rows(total, scope, k), gate, scope=scope, k=k, samples=samples, seed=seed)
            for scope in gate.scopes
        ),
        _compare_with_earlier_days(model, previous, gate, k=k),
    ]
    facts: dict[str, Any] = {"k": k, "hit_rate": model["hit_rate"], "ci_low": model["ci_low"], "ci_high": model["ci_high"]}
    for rule in rules:
        facts |= rule.facts
    head = f"warm hit_rate@{k} {model['hit_rate']:.4f} [{model['ci_low']:.4f}, {model['ci_high']:.4f}]"
    sentence = "; ".join([head, *(rule.sentence for rule in rules)])
    return GateReport(all(rule.passed for rule in rules), sentence, facts)


def _compare_with_baseline(
    hit_counts: pa.Table | HitCells,
    rows: Mapping[str, Mapping[str, Any]],
    gate: Gate,
    *,
    scope: Scope,
    k: int,
    samples: int,
    seed: int,
) -> _Rule:
    if not gate.baselines:
        return _Rule(True, "no baseline is configured")
    if not rows:
        return _Rule(True, f"no items to find in scope {scope}")
    missing = [name for name in gate.baselines if name not in rows]
    if missing:
        scored = ", ".join(sorted(rows))
        raise InputError(
            Fault("key gate.baselines", f"scorers of the day: {scored}", ", ".join(missing), "name baselines that were scored")
        )
    best = min(gate.baselines, key=lambda name: (-rows[name]["hit_rate"], name))
    gain = paired_gain(
        hit_counts,
        scorer=MODEL,
        against=best,
        scope=scope,
        population=Population.WARM,
        k=k,
        samples=samples,
        seed=seed,
    )
    passed = gain.ci_high >= gate.baseline_margin
    verdict = "not clearly below" if passed else "below"
    place, prefix = ("", "") if scope is Scope.ALL else (f"{scope}: ", f"{scope} ")
    facts = {
        "baseline": best,
        "gain": gain.gain,
        "gain_ci_low": gain.ci_low,
        "gain_ci_high": gain.ci_high,
        "baseline_margin": gate.baseline_margin,
    }
    return _Rule(
        passed,
        f"{place}gain over {best} {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}] is {verdict} {gate.baseline_margin:+g}",
        {prefix + name: value for name, value in facts.items()},
    )


def _compare_with_earlier_days(model: Mapping[str, Any], previous: Mapping[str, pa.Table], gate: Gate, *, k: int) -> _Rule:
    if not gate.last_partitions:
        return _Rule(True, "earlier days are not compared")
    rates = {day: _warm_rows(previous[day], Scope.ALL, k).get(MODEL) for day in sorted(previous)[-gate.last_partitions :]}
    known = {day: row["hit_rate"] for day, row in rates.items() if row is not None}
    if not known:
        return _Rule(True, f"no earlier day with hit_rate@{k} to compare with")
    mean = sum(known.values()) / len(known)
    floor = (1 - gate.max_drop_frac) * mean
    passed = model["ci_high"] >= floor
    days = f"{len(known)} partition{'s' if len(known) > 1 else ''}"
    return _Rule(
        passed,
        f"its upper bound {'reaches' if passed else 'is below'} {floor:.4f}, "
        f"{1 - gate.max_drop_frac:g} times the mean {mean:.4f} of the {days} before",
        {"mean_before": mean, "floor": floor, "max_drop_frac": gate.max_drop_frac, "days_before": list(known)},
    )


def _warm_rows(total: pa.Table, scope: Scope, k: int) -> dict[str, dict[str, Any]]:
    """Returns scorer -> its row of a scope among warm users and items, at k."""
    cell = (scope, Population.WARM, k)
    return {row[SCORER]: row for row in total.to_pylist() if (row[SCOPE], row[POPULATION], row["k"]) == cell}
