"""The report of a day: one markdown text that answers "is the model any good?" on its own.

Belongs here: the headline, the hit rates, who was counted. Does not belong here: numbers (`totals.py`), pictures
(`charts.py`), the sections on segments, lists and the trend (`report_sections.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dssm_assets.core.evaluation.chart_style import display_name, scorers_in_order
from dssm_assets.core.evaluation.charts import hit_rate_png
from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER, TRUTH_COUNT, HitCounts
from dssm_assets.core.evaluation.markdown import table, with_interval
from dssm_assets.core.evaluation.report_sections import ListFacts, list_section, segment_section, trend_section
from dssm_assets.core.evaluation.scorer import ModelScorer, ScorerName
from dssm_assets.core.evaluation.totals import Gain
from dssm_assets.core.evaluation.truth import Population, Scope, Truth

HEADINGS = {
    Scope.ALL: ("All items", "everything these users took on the day"),
    Scope.DISCOVERY: ("Discovery", "what they had not taken in the window; what they had is no candidate"),
    Scope.REPEAT: ("Repeat", "what they had taken in the window already"),
}


@dataclass(frozen=True)
class ReportFacts:
    """Who and what was counted, and what was not.

    Attributes:
        evaluated_users: users with a positive event on the day, or the sample of them that is scored.
        users_without_truth: "scope/population" -> evaluated users without truth there.
        users_without_vector: evaluated users that the model has no vector for; their lists are empty.
        truth_pairs: distinct (user, item) pairs of evaluated users on the day.
        pairs_outside_corpus: pairs whose item has no vector; they count as missed.
        corpus_items: candidates.
        day_users: users with a positive event on the day; 0: nobody but the evaluated ones.
    """

    evaluated_users: int
    users_without_truth: dict[str, int]
    users_without_vector: int
    truth_pairs: int
    pairs_outside_corpus: int
    corpus_items: int
    day_users: int = 0


def report_facts(truth: Truth, scorer: ModelScorer, hit_counts: HitCounts) -> ReportFacts:
    """Returns the facts of a run."""
    return ReportFacts(
        evaluated_users=truth.num_users,
        users_without_truth=hit_counts.users_without_truth,
        users_without_vector=int((scorer.vector_row < 0).sum()),
        truth_pairs=len(truth.pair_item),
        pairs_outside_corpus=int((truth.pair_item < 0).sum()),
        corpus_items=len(scorer.item_ids),
    )


def facts_together(parts: Sequence[ReportFacts]) -> ReportFacts:
    """Returns the facts of a run whose users were counted in parts, at least one, over one corpus."""
    without = {cell: sum(part.users_without_truth[cell] for part in parts) for cell in parts[0].users_without_truth}
    return ReportFacts(
        evaluated_users=sum(part.evaluated_users for part in parts),
        users_without_truth=without,
        users_without_vector=sum(part.users_without_vector for part in parts),
        truth_pairs=sum(part.truth_pairs for part in parts),
        pairs_outside_corpus=sum(part.pairs_outside_corpus for part in parts),
        corpus_items=parts[0].corpus_items,
    )


def render_report(
    *,
    day: str,
    total: pa.Table,
    segments: pa.Table,
    gains: Sequence[Gain],
    facts: ReportFacts,
    lists: ListFacts,
    trend: pa.Table,
) -> str:
    """Returns the report as markdown with its chart embedded; the same input gives the same text.

    Args:
        day: the evaluation day, YYYY-MM-DD.
        total: total_hit_rate.
        segments: the model's hit rate per segment, as of `segment_table`.
        gains: the model against the best baseline, as of `gains_over_best`.
        facts: who was counted.
        lists: what the model's lists are like.
        trend: hit rates of the last days, this one among them, as of `trend_table`.
    """
    k = max(total.column("k").to_pylist())
    parts = [f"# Recall on {day}", _headline(total, gains), READING, *_chart(total)]
    parts += [_scope_section(total, scope, facts) for scope in Scope]
    parts += [segment_section(segments, k), list_section(lists), trend_section(trend, k), _facts_section(facts)]
    return "\n\n".join(parts) + "\n"


READING = (
    "How to read this: hit_rate@k is the share of what users took on the day that stood among the first k items of their "
    "list, so 0.25 means that one in four was found. Brackets are 95% intervals from a bootstrap over users: had other users "
    "come, the number would likely have stayed inside. All scorers see the same users, so compare two of them by the gain "
    "stated above, not by whether their brackets overlap. Known users and known items only, unless a table says otherwise."
)


def _headline(total: pa.Table, gains: Sequence[Gain]) -> str:
    k = max(total.column("k").to_pylist())
    rows = {
        row[SCOPE]: row
        for row in total.to_pylist()
        if row[SCORER] == ScorerName.MODEL and row[POPULATION] == Population.WARM and row["k"] == k
    }
    lines = (
        [f"**hit_rate@{k} {with_interval(rows[Scope.ALL])}**"] if Scope.ALL in rows else ["No known user took a known item."]
    )
    lines += [_gain_line(gain) for gain in gains]
    return "\n".join([lines[0], "", *lines[1:]]).rstrip()


def _gain_line(gain: Gain) -> str:
    if gain.ci_low > 0:
        verdict = "ahead of"
    elif gain.ci_high < 0:
        verdict = "behind"
    else:
        verdict = "not told apart from"
    return (
        f"- {gain.scope}: {verdict} the best baseline, {display_name(gain.against)}, "
        f"by {gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}] at k = {gain.k}"
    )


def _chart(total: pa.Table) -> list[str]:
    if Population.WARM not in total.column(POPULATION).to_pylist():
        return []
    data = base64.b64encode(hit_rate_png(total)).decode("ascii")
    return [f"![hit rate of the model and the baselines at each k, with 95% intervals](data:image/png;base64,{data})"]


def _scope_section(total: pa.Table, scope: Scope, facts: ReportFacts) -> str:
    title, meaning = HEADINGS[scope]
    rows = [row for row in total.to_pylist() if row[SCOPE] == scope and row[POPULATION] == Population.WARM]
    if not rows:
        return f"## {title}\n\n{meaning[0].upper()}{meaning[1:]}: no user has any, so there is no number."
    ks = sorted({int(row["k"]) for row in rows})
    by_cell = {(row[SCORER], row["k"]): row for row in rows}
    names = scorers_in_order(sorted({str(row[SCORER]) for row in rows}))
    body = [[_strong(name), *(with_interval(by_cell[name, k]) for k in ks)] for name in names]
    left_out = facts.users_without_truth[f"{scope}/{Population.WARM}"]
    note = (
        f"{meaning[0].upper()}{meaning[1:]}: {rows[0]['users']:,} users, {rows[0][TRUTH_COUNT]:,} items to find; "
        f"{left_out:,} evaluated users have none of these and do not count."
    )
    return f"## {title}\n\n{note}\n\n{table(['scorer', *(f'hit_rate@{k}' for k in ks)], body)}"


def _facts_section(facts: ReportFacts) -> str:
    return "\n".join(
        [
            "## Who was counted",
            "",
            f"- Users with a positive event on the day{_sample(facts)}: {facts.evaluated_users:,}, with {facts.truth_pairs:,} "
            "distinct items.",
            f"- Candidates: {facts.corpus_items:,} items. Items to find that are not among them: {facts.pairs_outside_corpus:,}; "
            "they count as missed wherever their population counts.",
            f"- Users without a vector: {facts.users_without_vector:,}; the model's lists for them are empty and count as missed.",
        ]
    )


def _sample(facts: ReportFacts) -> str:
    if facts.day_users <= facts.evaluated_users:
        return ""
    return f", a sample of {facts.day_users:,} (`evaluation.max_users`)"


def _strong(name: str) -> str:
    return f"**{display_name(name)}**" if name == ScorerName.MODEL else display_name(name)
