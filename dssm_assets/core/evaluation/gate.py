"""The gate decides whether the lists of a day's model are good enough to be served.

The gate judges the served list: the merged list where channels are enabled, else the model's vectors alone (`gate.scorer`). In each
configured scope it asks two questions, over warm users and items at the largest k. For the merged list it asks the first one over
all users and items as well. Both compare on the same day and the same users, so that a hard day is not taken for a bad model:

- **ahead or behind**: the list's hit_rate minus the hit_rate of the day's best baseline. Fails if the whole 95% interval, paired
  over users, is below `baseline_margin`.
- **drop**: the list's hits divided by the hits of the day's best baseline, compared with this ratio on the last evaluated days.
  Fails if the whole interval is below (1 - `max_drop_frac`) times the earlier ratio.

A scope with few pairs or users is "not enough evidence". So is an interval around the margin if it is wider than the baseline's
own rate. Both pass, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Any

import pyarrow as pa

from dssm_assets.core.columns import TRUTH_COUNT
from dssm_assets.core.config.evaluation import Gate, GatedScorer
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL
from dssm_assets.core.evaluation.labels import Spans, display_name
from dssm_assets.core.evaluation.rates import (
    Gain,
    HitCells,
    Rows,
    baselines_of,
    best_baseline,
    not_warm_frac,
    paired_gain,
    rows_of_cell,
)
from dssm_assets.core.names import Population, Scope


class Verdict(StrEnum):
    """The gate's verdict on a day, from best to worst."""

    PASSED = "passed"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"
    """Too little data to judge the model. It is not held back."""
    FAILED = "failed"


@dataclass(frozen=True)
class GateReport:
    """The verdict on a day, or on one question: a sentence on who is ahead and by how much, and the figures behind it.

    Attributes:
        summary: the decisive figures in about 50 characters, for a column of the UI.
    """

    verdict: Verdict
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""

    @property
    def passed(self) -> bool:
        return self.verdict is not Verdict.FAILED


def hit_rate_gate(
    hit_counts: HitCells,
    total: pa.Table,
    previous: Mapping[str, pa.Table],
    gate: Gate,
    *,
    k: int,
    samples: int,
    seed: int,
    spans: Spans | None = None,
) -> GateReport:
    """Judges whether the lists of the day's model may be served.

    By hand: of 1,000 items to find the list finds 500 and the best baseline 600. If the gain of -0.1 has the interval [-0.2, 0.05],
    the list passes, since 0.05 reaches the margin 0; with [-0.2, -0.02] it fails. On the days before, the list found 90 items and
    the best baselines 60, which is 1.5 times as many. With max_drop_frac 0.3 it must now find 1.05 times as many as the best
    baseline. So 500 against 600 is a drop if the interval of (500 - 1.05 * 600) / 1000 = -0.13 ends below 0.

    Args:
        hit_counts: the day's counts per user, from `hits.count_hits`.
        previous: earlier day -> its rates; only the last `gate.last_partitions` days count.
        spans: how far back baselines read; shown in the sentence.

    Raises:
        InputError: a configured baseline was not scored.
    """
    days = sorted(previous)[-gate.last_partitions :] if gate.last_partitions else []
    answers, sentences, facts = dict[Verdict, GateReport](), [], dict[str, Any]()
    for scope, population in product(gate.scopes, (Population.WARM, Population.ALL)):
        is_warm = population is Population.WARM
        if not is_warm and (gate.scorer is GatedScorer.MODEL or not not_warm_frac(total, scope, k, MERGED)):
            continue
        paired = partial(paired_gain, hit_counts, scope=scope, population=population, k=k, samples=samples, seed=seed)
        question = _Question(rows_of_cell(total, scope, k, population), gate, paired, spans, is_warm)
        before = {day: rows_of_cell(previous[day], scope, k) for day in days}
        words = ("" if scope is Scope.ALL else str(scope), "" if is_warm else "all users and items")
        prefix = ", ".join(filter(None, words))
        for answer in question.answer(before):
            answers.setdefault(answer.verdict, replace(answer, summary=", ".join(filter(None, (answer.summary, prefix)))))
            sentences.append(f"{prefix}: {answer.sentence}".removeprefix(": "))
            facts |= {f"{prefix} {name}".lstrip(): value for name, value in answer.facts.items()}
    worst = next(answers[verdict] for verdict in reversed(Verdict) if verdict in answers)
    summary, sentence = (f"{worst.verdict}: {text}" for text in (worst.summary, "; ".join(sentences)))
    return GateReport(worst.verdict, sentence, {"verdict": summary, "k": k, **facts}, summary)


@dataclass(frozen=True)
class _Question:
    """The gate's two questions for one scope in one population of a day."""

    rows: Rows
    gate: Gate
    paired: partial[Gain]
    spans: Spans | None
    is_warm: bool

    def answer(self, before: Mapping[str, Rows]) -> list[GateReport]:
        """Answers both questions. Answers only one for all users and items, or if the scope is too small to compare."""
        wanted = (MERGED, MODEL) if self.gate.scorer is GatedScorer.SERVED else (MODEL,)
        scorer = next((name for name in wanted if name in self.rows), None)
        if scorer is None:
            sentence = "no known user has a known item to find"
            return [GateReport(Verdict.NOT_ENOUGH_EVIDENCE, sentence, summary="nothing to find")]
        row = self.rows[scorer]
        pairs, users = row[TRUTH_COUNT], row["users"]
        facts = {"scorer": scorer, "pairs": pairs, **{name: row[name] for name in ("hit_rate", "ci_low", "ci_high", "users")}}
        if pairs < self.gate.min_pairs or users < self.gate.min_users:
            needed = f"a verdict needs {self.gate.min_pairs:,} by {self.gate.min_users:,}"
            sentence = f"{pairs:,} items to find by {users:,} {'known ' * self.is_warm}users; {needed}"
            return [GateReport(Verdict.NOT_ENOUGH_EVIDENCE, sentence, facts, f"{pairs:,} items to find")]
        best = _best(self.rows, self.gate, must_have_all=True)
        if best is None:
            return [GateReport(Verdict.PASSED, "compared with no baseline", facts, "compared with no baseline")]
        ahead = self._compare_with_best(scorer, best)
        answers = [replace(ahead, facts={**facts, **ahead.facts})]
        has_second = self.gate.last_partitions and self.is_warm
        return [*answers, self._compare_with_days_before(scorer, best, before)] if has_second else answers

    def _compare_with_best(self, scorer: str, best: str) -> GateReport:
        gain, margin = self.paired(scorer=scorer, against=best), self.gate.baseline_margin
        baseline = self.rows[best]["hit_rate"]
        sentence = f"{self._describe(gain)}, {self.rows[scorer]['users']:,} users"
        if margin:
            sentence += f"; at least {margin:+g} is required"
        is_open = gain.ci_low <= margin <= gain.ci_high and gain.ci_high - gain.ci_low > baseline
        if is_open:
            sentence += ", an interval wider than the baseline's own rate"
        if scorer != MODEL and MODEL in self.rows and self.is_warm:
            sentence += f" (not judged: {self._describe(self.paired(scorer=MODEL, against=best))})"
        facts = {"baseline": best, "baseline_hit_rate": baseline, "baseline_margin": margin}
        facts |= {"gain": gain.gain, "gain_ci_low": gain.ci_low, "gain_ci_high": gain.ci_high}
        undecided = Verdict.NOT_ENOUGH_EVIDENCE if is_open else Verdict.PASSED
        summary = f"gain {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]" + (
            f", needs {margin:+g}" if margin else ""
        )
        return GateReport(Verdict.FAILED if gain.ci_high < margin else undecided, sentence, facts, summary)

    def _compare_with_days_before(self, scorer: str, best: str, before: Mapping[str, Rows]) -> GateReport:
        judged = [(day, rows, found) for day, rows in before.items() if scorer in rows and (found := _best(rows, self.gate))]
        hits, pairs = (sum(rows[scorer][column] for _, rows, _ in judged) for column in ("hits", TRUTH_COUNT))
        baseline_hits = sum(rows[found]["hits"] for _, rows, found in judged)
        if not hits or not baseline_hits or pairs < self.gate.min_pairs:
            return GateReport(Verdict.PASSED, "no earlier partitions with enough items to find to compare with")
        ratio_before = hits / baseline_hits
        required = (1 - self.gate.max_drop_frac) * ratio_before
        failed = self.paired(scorer=scorer, against=best, times=required).ci_high < 0
        now, baseline_now = self.rows[scorer]["hits"], self.rows[best]["hits"]
        finds = f"{now / baseline_now:.2f} times as many items as the baseline" if baseline_now else f"{now}, the baseline none"
        partitions = f"{len(judged)} partition{'s' if len(judged) > 1 else ''}"
        sentence = f"it finds {finds}, {ratio_before:.2f} times on the {partitions} before"
        summary = ""
        if failed:
            summary = f"{now / baseline_now:.2f} times the baseline, {ratio_before:.2f} before"
            sentence += f": surely a drop of more than {self.gate.max_drop_frac:.0%}"
        facts = {"ratio_before": ratio_before, "required_ratio": required, "max_drop_frac": self.gate.max_drop_frac}
        facts["days_before"] = [day for day, _, _ in judged]
        return GateReport(Verdict.FAILED if failed else Verdict.PASSED, sentence, facts, summary)

    def _describe(self, gain: Gain) -> str:
        rate, baseline = (self.rows[name]["hit_rate"] for name in (gain.scorer, gain.against))
        return (
            f"{display_name(gain.scorer)} ({rate:.4f}) is {gain.position} the best baseline, {display_name(gain.against, self.spans)} "
            f"({baseline:.4f}), by {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}] of hit_rate@{gain.k}"
        )


def _best(rows: Rows, gate: Gate, *, must_have_all: bool = False) -> str | None:
    """Returns the best of the gate's baselines, by default of all baselines. None if there is no baseline."""
    missing = [name for name in gate.baselines or () if name not in rows]
    if missing and must_have_all:
        expected = f"baselines of the day: {', '.join(baselines_of(rows))}"
        raise InputError(Fault("key gate.baselines", expected, ", ".join(missing), "name baselines that were scored"))
    return best_baseline(rows, gate.baselines)
