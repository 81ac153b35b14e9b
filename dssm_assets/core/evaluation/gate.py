"""The gate: whether what a day's model would serve is good enough to be shipped.

The gate judges what is served: the merged list where channels are enabled, else the model's vectors alone (`gate.scorer`). In each
configured scope, over warm users and items at the largest k, it asks two questions. Both compare on the same day and the same users, so
that a hard day, on which everything finds less, does not count as a bad model:

- **ahead or behind**: hit_rate minus that of the best baseline of the day. Fails if the whole 95% interval, paired over users, is
  below `baseline_margin`.
- **drop**: how many times the hits of the best baseline it finds, compared with the last partitions, each against its own day's best
  baseline. Fails if the whole interval is below (1 - `max_drop_frac`) times that ratio.

A scope with few pairs or users to find is "not enough evidence", and so is an interval wider than the baseline's own rate that leaves open
who is ahead. That is no failure, and it is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT
from dssm_assets.core.config.evaluation import Gate, GatedScorer
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, is_of_channels
from dssm_assets.core.evaluation.labels import Spans, display_name
from dssm_assets.core.evaluation.rates import Gain, HitCells, paired_gain
from dssm_assets.core.evaluation.scopes import Population, Scope


class Verdict(StrEnum):
    """What the gate says of a day."""

    PASSED = "passed"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"
    """Nothing speaks against the model and nothing was shown: it is not held back."""
    FAILED = "failed"


@dataclass(frozen=True)
class GateReport:
    """The verdict on a day, or on one question, a sentence that says who is ahead and by how much, and the figures behind it."""

    verdict: Verdict
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Returns whether the day may be shipped; a lack of evidence does not hold it back."""
        return self.verdict is not Verdict.FAILED


Rows = Mapping[str, Mapping[str, Any]]
"""Scorer -> its row of total_hit_rate in one scope, of warm users and items at one k."""


def hit_rate_gate(
    hit_counts: pa.Table | HitCells,
    total: pa.Table,
    previous: Mapping[str, pa.Table],
    gate: Gate,
    *,
    k: int,
    samples: int,
    seed: int,
    spans: Spans | None = None,
) -> GateReport:
    """Returns whether what the day's model would serve may be shipped.

    By hand: of 1,000 items to find the list finds 500, the best baseline 600, and the gain of -0.1 has the interval [-0.2, 0.05]:
    passes, since 0.05 reaches the margin 0. With [-0.2, -0.02] it fails. On the days before, the list found 90 items where the best baselines
    found 60: 1.5 times. With max_drop_frac 0.3 it now has to find 1.05 times what the best baseline finds, so 500 against 600 is a drop if the
    interval of (500 - 1.05 * 600) / 1000 = -0.13 ends below 0.

    Args:
        hit_counts: the day's counts per user, as of `hits.count_hits`.
        previous: day -> rates of an earlier day; only the last `gate.last_partitions` count.
        spans: days that the baselines count, which the sentence then names.

    Raises:
        InputError: if a configured baseline was not scored.
    """
    comparison = _Comparison(hit_counts, gate, k, samples, seed, spans)
    days = sorted(previous)[-gate.last_partitions :] if gate.last_partitions else []
    earlier = {day: previous[day] for day in days}
    answers = [one for scope in gate.scopes for one in comparison.judge(_warm_rows(total, scope, k), scope, earlier)]
    verdicts = [answer.verdict for answer in answers]
    verdict = next((worst for worst in (Verdict.FAILED, Verdict.NOT_ENOUGH_EVIDENCE) if worst in verdicts), Verdict.PASSED)
    facts: dict[str, Any] = {"verdict": str(verdict), "k": k}
    for answer in answers:
        facts |= answer.facts
    return GateReport(verdict, f"{verdict}: {'; '.join(answer.sentence for answer in answers)}", facts)


@dataclass(frozen=True)
class _Comparison:
    """How one day is compared: its counts, the rules, and the resamples."""

    hit_counts: pa.Table | HitCells
    gate: Gate
    k: int
    samples: int
    seed: int
    spans: Spans | None

    def judge(self, rows: Rows, scope: Scope, earlier: Mapping[str, pa.Table]) -> list[GateReport]:
        """Returns the answers in a scope: its size if that is too small, else both questions."""
        place = "" if scope is Scope.ALL else f"{scope}: "
        scorer = _judged_scorer(rows, self.gate)
        if scorer is None:
            return [GateReport(Verdict.NOT_ENOUGH_EVIDENCE, f"{place}no known user has a known item to find")]
        row = rows[scorer]
        facts = {name: row[name] for name in ("hit_rate", "ci_low", "ci_high", "users")}
        facts |= {"scorer": scorer, "pairs": row[TRUTH_COUNT]}
        if row[TRUTH_COUNT] < self.gate.min_pairs or row["users"] < self.gate.min_users:
            sentence = (
                f"{place}{row[TRUTH_COUNT]:,} items to find by {row['users']:,} known users; "
                f"a verdict needs {self.gate.min_pairs:,} by {self.gate.min_users:,}"
            )
            return [GateReport(Verdict.NOT_ENOUGH_EVIDENCE, sentence, _of_scope(facts, scope))]
        baselines = _baselines(rows, self.gate)
        if not baselines:
            return [GateReport(Verdict.PASSED, f"{place}compared with no baseline", _of_scope(facts, scope))]
        best = _best(rows, baselines)
        answers = [self._ahead_or_behind(rows, scope, place, scorer, best)]
        if self.gate.last_partitions:
            answers.append(self._drop(rows, scope, place, scorer, best, earlier))
        return [GateReport(answer.verdict, answer.sentence, _of_scope({**facts, **answer.facts}, scope)) for answer in answers]

    def _gain(self, scope: Scope, scorer: str, best: str, times: float = 1.0) -> Gain:
        return paired_gain(
            self.hit_counts,
            scorer=scorer,
            against=best,
            scope=scope,
            population=Population.WARM,
            k=self.k,
            samples=self.samples,
            seed=self.seed,
            times=times,
        )

    def _ahead_or_behind(self, rows: Rows, scope: Scope, place: str, scorer: str, best: str) -> GateReport:
        gain, margin, baseline = self._gain(scope, scorer, best), self.gate.baseline_margin, rows[best]["hit_rate"]
        sentence = f"{place}{_describe(rows, gain, self.spans)}, {rows[scorer]['users']:,} users"
        if margin:
            sentence += f"; at least {margin:+g} is required"
        is_open = gain.ci_low <= margin <= gain.ci_high and gain.ci_high - gain.ci_low > baseline
        if is_open:
            sentence += ", an interval wider than the baseline's own rate"
        if scorer != MODEL and MODEL in rows:
            sentence += f" (not judged: {_describe(rows, self._gain(scope, MODEL, best), self.spans)})"
        facts = {
            "baseline": best,
            "baseline_hit_rate": baseline,
            "gain": gain.gain,
            "gain_ci_low": gain.ci_low,
            "gain_ci_high": gain.ci_high,
            "baseline_margin": margin,
        }
        failed = gain.ci_high < margin
        verdict = Verdict.FAILED if failed else Verdict.NOT_ENOUGH_EVIDENCE if is_open else Verdict.PASSED
        return GateReport(verdict, sentence, facts)

    def _drop(
        self, rows: Rows, scope: Scope, place: str, scorer: str, best: str, earlier: Mapping[str, pa.Table]
    ) -> GateReport:
        before = _hits_before(earlier, scorer, scope, self.gate, self.k)
        hits, baseline_hits, pairs = (sum(day[column] for day in before.values()) for column in range(3))
        if not hits or not baseline_hits or pairs < self.gate.min_pairs:
            return GateReport(Verdict.PASSED, f"{place}no earlier partitions with enough items to find to compare with")
        ratio_before = hits / baseline_hits
        required = (1 - self.gate.max_drop_frac) * ratio_before
        lead = self._gain(scope, scorer, best, required)
        failed = lead.ci_high < 0
        finds = (
            f"{rows[scorer]['hits'] / rows[best]['hits']:.2f} times what that baseline finds"
            if rows[best]["hits"]
            else "what no baseline finds"
        )
        days = f"{len(before)} partition{'s' if len(before) > 1 else ''}"
        sentence = f"{place}it finds {finds}, {ratio_before:.2f} times on the {days} before"
        if failed:
            sentence += f": surely a drop of more than {self.gate.max_drop_frac:.0%}"
        facts = {
            "ratio_before": ratio_before,
            "required_ratio": required,
            "max_drop_frac": self.gate.max_drop_frac,
            "days_before": list(before),
        }
        return GateReport(Verdict.FAILED if failed else Verdict.PASSED, sentence, facts)


def _describe(rows: Rows, gain: Gain, spans: Spans | None) -> str:
    """Returns who is ahead and by how much, with both rates and the interval of the difference."""
    position = "ahead of" if gain.ci_low > 0 else "behind" if gain.ci_high < 0 else "not distinguishable from"
    return (
        f"{display_name(gain.scorer)} ({rows[gain.scorer]['hit_rate']:.4f}) is {position} the best baseline, "
        f"{display_name(gain.against, spans)} ({rows[gain.against]['hit_rate']:.4f}), by {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}] of hit_rate@{gain.k}"
    )


def _judged_scorer(rows: Rows, gate: Gate) -> str | None:
    """Returns what is judged; None if it has no row."""
    wanted = (MERGED, MODEL) if gate.scorer is GatedScorer.SERVED else (MODEL,)
    return next((name for name in wanted if name in rows), None)


def _baselines(rows: Rows, gate: Gate) -> Sequence[str]:
    """Returns the baselines that are compared with.

    Raises:
        InputError: a configured one was not scored.
    """
    scored = [name for name in rows if name != MODEL and not is_of_channels(name)]
    if gate.baselines is None:
        return scored
    missing = [name for name in gate.baselines if name not in scored]
    if missing:
        expected, remedy = f"baselines of the day: {', '.join(sorted(scored))}", "name baselines that were scored"
        raise InputError(Fault("key gate.baselines", expected, ", ".join(missing), remedy))
    return gate.baselines


def _best(rows: Rows, baselines: Sequence[str]) -> str:
    return min(baselines, key=lambda name: (-rows[name]["hit_rate"], name))


def _hits_before(
    earlier: Mapping[str, pa.Table], scorer: str, scope: Scope, gate: Gate, k: int
) -> dict[str, tuple[int, int, int]]:
    """Returns day -> hits of the scorer, hits of the day's best baseline, items to find; for days on which both were scored."""
    found: dict[str, tuple[int, int, int]] = {}
    for day, total in earlier.items():
        rows = _warm_rows(total, scope, k)
        named = rows if gate.baselines is None else gate.baselines
        baselines = [name for name in named if name in rows and name != MODEL and not is_of_channels(name)]
        if scorer in rows and baselines:
            found[day] = rows[scorer]["hits"], rows[_best(rows, baselines)]["hits"], rows[scorer][TRUTH_COUNT]
    return found


def _of_scope(facts: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    prefix = "" if scope is Scope.ALL else f"{scope} "
    return {prefix + name: value for name, value in facts.items()}


def _warm_rows(total: pa.Table, scope: Scope, k: int) -> dict[str, dict[str, Any]]:
    """Returns scorer -> its row of a scope among warm users and items, at k."""
    cell = (scope, Population.WARM, k)
    return {row[SCORER]: row for row in total.to_pylist() if (row[SCOPE], row[POPULATION], row["k"]) == cell}
