"""The report of a day: one markdown text that answers "is the model any good?" on its own.

Belongs here: the text of all sections and its tables. Does not belong here: the headline (`report_headline.py`), numbers (`rates.py`,
`segments.py`, `list_quality.py`), charts (`charts.py`), names of scorers and scopes (`labels.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, SEGMENT, TRUTH_COUNT, VALUE
from dssm_assets.core.evaluation.charts import hit_rate_png
from dssm_assets.core.evaluation.evaluation_tables import CHANNEL, MERGED, MERGED_WITHOUT, MODEL
from dssm_assets.core.evaluation.labels import SCOPES, TREND_SCOPES, Spans, display_name, scorers_in_order
from dssm_assets.core.evaluation.rates import DAY, Gain
from dssm_assets.core.evaluation.report_headline import gain_line, headline
from dssm_assets.core.evaluation.report_text import cell, table, with_interval
from dssm_assets.core.evaluation.scopes import Population, Scope, counted_population
from dssm_assets.core.evaluation.segments import TIERS, ItemPopularity, Tier
from dssm_assets.core.evaluation.truth import Truth

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.hits import HitCounts
    from dssm_assets.core.evaluation.scorer import ModelScorer


@dataclass(frozen=True)
class ListFacts:
    """What the model's lists of a day are like.

    Attributes:
        quality: as of `list_quality`.
        overlap: as of `list_overlap`; without rows if there is nothing to compare with.
        previous_day: the evaluation day that overlap compares with, None if there is none.
        head_items: number of head items.
        head_frac: fraction of the window's positive events that are on head items.
    """

    quality: pa.Table
    overlap: pa.Table
    previous_day: str | None
    head_items: int
    head_frac: float


def list_facts(quality: pa.Table, overlap: pa.Table, previous_day: str | None, popularity: ItemPopularity) -> ListFacts:
    """Returns the facts, with the number of head items and their fraction of events."""
    head = int((popularity.tier == TIERS.index(Tier.HEAD)).sum())
    return ListFacts(quality, overlap, previous_day if overlap.num_rows else None, head, popularity.head_frac)


def segment_report(day: str, segments: Mapping[str, pa.Table], k: int) -> str:
    """Returns the segments of a day as a text of their own.

    Args:
        segments: as of `segment_section`.
    """
    return f"# Hit rate by segment on {day}\n\n{segment_section(segments, k)}\n"


def segment_section(segments: Mapping[str, pa.Table], k: int) -> str:
    """Returns one table per segment: users, items to find, and each scorer's hit rate with its interval.

    Args:
        segments: scorer -> its hit rate per segment, as of `segment_table`, over the same users; at least one.
    """
    names = [display_name(scorer) for scorer in segments]
    note = (
        f"hit_rate@{k} of {' and '.join(f'the {name}' for name in names)}. New users and new items count here too, so the rows of a "
        "segment add up to the population `all`. A row's users are those with items to find in it. Brackets are 95% intervals over "
        "these users."
    )
    parts = ["## By segment", note]
    rows_of_values = zip(*(one.to_pylist() for one in segments.values()), strict=True)
    for name, rows in groupby(rows_of_values, key=lambda rows: str(rows[0][SEGMENT])):
        label = cell(name.replace("_", " "))
        body = [[cell(str(first[VALUE])), *_sizes(first), *map(with_interval, (first, *rest))] for first, *rest in rows]
        parts.append(table(f"By {label}, hit_rate@{k}", [label, "users", "items to find", *names], body))
    return "\n\n".join(parts if len(parts) > 2 else [*parts, "No segment has users."])


def _sizes(row: dict[str, Any]) -> list[str]:
    return [f"{row[key]:,}" for key in ("users", TRUTH_COUNT)]


def list_section(facts: ListFacts) -> str:
    """Returns coverage, popularity bias, novelty and the overlap with the previous evaluation day, per k."""
    if not facts.quality.num_rows:
        return "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."
    note = (
        f"The model's lists for {facts.quality.column('users')[0].as_py():,} evaluated users. Coverage: percentage of the "
        f"candidates that are in any list. Head items: percentage of list entries among the {facts.head_items:,} most popular "
        f"items (1% of the items with events in the window), which have {facts.head_frac:.1%} of the window's events. Novelty: "
        "mean -log2 of an item's fraction of the window's events, in bits; one bit more means half as popular."
    )
    overlap = {row["k"]: row for row in facts.overlap.to_pylist()}
    if facts.previous_day is None:
        note += " There is no earlier evaluation day to compare the lists with."
    else:
        users = facts.overlap.column("users")[0].as_py()
        note += (
            f" Kept since {facts.previous_day}: mean percentage of a user's list that was in the list of that day. Jaccard: items "
            f"in both lists / items in either. Both over {users:,} users with a list on both days."
        )
    body = [[*_quality_cells(row), *_overlap_cells(overlap.get(row["k"]))] for row in facts.quality.to_pylist()]
    head = ["k", "coverage", "head items", "novelty", "kept", "Jaccard"]
    return f"## The lists\n\n{note}\n\n{table(f'Lists of the {display_name(MODEL)}', head, body)}"


def _quality_cells(row: dict[str, Any]) -> list[str]:
    return [str(row["k"]), f"{row['coverage']:.2%}", f"{row['popularity_bias']:.1%}", f"{row['novelty']:.2f}"]


def _overlap_cells(row: dict[str, Any] | None) -> list[str]:
    return ["-", "-"] if row is None else [f"{row['kept']:.1%}", f"{row['jaccard']:.3f}"]


def trend_section(trend: pa.Table, k: int) -> str:
    """Returns the hit rates of the last evaluation days, the newest first: the model with its interval, the baselines."""
    rows = trend.to_pylist()
    title = "## The last evaluation days"
    if not rows:
        return f"{title}\n\nNo day has known users with known items to find, so there is no trend."
    names = scorers_in_order(str(row[SCORER]) for row in rows if row[SCOPE] == Scope.ALL)
    cells = {(row[DAY], row[SCOPE], row[SCORER]): row for row in rows}
    days = sorted({str(row[DAY]) for row in rows}, reverse=True)
    served = [name for name in names if name == MERGED]
    baselines = [name for name in names if name not in (MODEL, MERGED)]
    model = _strong(MODEL)
    shown = [*((Scope.ALL, name) for name in served), *((scope, MODEL) for scope in TREND_SCOPES)]
    of_model = [model, *(f"{model}, {scope}" for scope in TREND_SCOPES[1:])]
    head = ["day", "users", *map(_strong, served), *of_model, *map(display_name, baselines)]
    body = []
    for day in days:
        users = cells.get((day, Scope.ALL, MODEL))
        rates = ["-" if (row := cells.get((day, *key))) is None else with_interval(row) for key in shown]
        others = [_rate(cells.get((day, Scope.ALL, name))) for name in baselines]
        body.append([day, "-" if users is None else f"{users['users']:,}", *rates, *others])
    return f"{title}\n\n{table(f'hit_rate@{k} by day, known users and known items', head, body)}"


def _rate(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['hit_rate']:.4f}"


@dataclass(frozen=True)
class ReportFacts:
    """Who and what was counted, and what was not.

    Attributes:
        evaluated_users: users with a positive event on the day, or the sample of them that is scored.
        users_without_truth: "scope/population" -> evaluated users without truth there.
        users_without_vector: evaluated users without a vector of the model; their lists are empty.
        truth_pairs: distinct (user, item) pairs of evaluated users on the day.
        pairs_outside_corpus: pairs whose item has no vector; they count as missed.
        corpus_items: candidates.
        day_users: users with a positive event on the day; 0 if these are the evaluated ones.
        cold_items: candidates without any event before the day.
        category_column: of item_table, by whose popularity cold items are ranked; None: no column is a category.
    """

    evaluated_users: int
    users_without_truth: dict[str, int]
    users_without_vector: int
    truth_pairs: int
    pairs_outside_corpus: int
    corpus_items: int
    day_users: int = 0
    cold_items: int = 0
    category_column: str | None = None


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


def merge_facts(parts: Sequence[ReportFacts]) -> ReportFacts:
    """Returns the facts of a run from those of its ranges of users, at least one, over one corpus."""
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
    segments: Mapping[str, pa.Table],
    gains: Sequence[Gain],
    facts: ReportFacts,
    lists: ListFacts,
    trend: pa.Table,
    merged_gains: Sequence[Gain] = (),
    channels: Sequence[Gain] = (),
    spans: Spans | None = None,
    span_days: int = 1,
) -> str:
    """Returns the report as markdown with its chart embedded; the same input gives the same text.

    Args:
        day: the evaluation day, YYYY-MM-DD, or the first and the last day of its span.
        segments: as of `segment_section`, what is served first.
        gains: the model against the best baseline, as of `gains_over_best`.
        lists: what the model's lists are like.
        trend: hit rates of the last days, this day included, as of `trend_table`.
        merged_gains: the merged list against the best baseline, as of `gains_over_best`.
        channels: what each channel is worth, as of `channel_gains`.
        spans: days that the baselines read, for their names in the tables of the day.
    """
    k = max(total.column("k").to_pylist())
    parts = [f"# Recall on {day}", headline(total, gains, merged_gains, channels, segments), READING, *_chart(total, spans)]
    parts += [_scope_section(total, scope, facts, [*merged_gains, *gains], spans) for scope in Scope]
    parts += [channel_section(total, channels)] if channels else []
    parts += [segment_section(segments, k), list_section(lists), trend_section(trend, k), _facts_section(facts)]
    text = "\n\n".join(parts) + "\n"
    return text if span_days == 1 else text.replace("on the day", f"on these {span_days} days")


READING = (
    "How to read this: hit_rate@k is the fraction of the items that users interacted with on the day that were among the first "
    "k items of their lists. 0.25 means that one in four was found. Brackets are 95% intervals from a bootstrap over users: "
    "with other users the number would likely have stayed inside. All scorers see the same users (but those of single channels, which may see a sample), so compare two of them by "
    "the gain stated above, not by whether their brackets overlap. The second table of a scope has means over users: NDCG@k, which "
    "is 1 if the list begins with the user's items and less the further down they are, the fraction of a user's items that was "
    "found, and the fraction of users for whom any was. Only known users and known items count, unless a table "
    "says otherwise."
)


def channel_section(total: pa.Table, channels: Sequence[Gain]) -> str:
    """Returns what each channel finds alone, what the merged list finds without it, and the difference that it makes."""
    k = channels[0].k
    rates = {
        row[SCORER]: row
        for row in total.to_pylist()
        if (row[SCOPE], row[POPULATION], row["k"]) == (str(Scope.ALL), str(Population.WARM), k)
    }
    body = []
    for gain in channels:
        name = gain.against.removeprefix(MERGED_WITHOUT)
        alone = rates.get(f"{CHANNEL}{name}", rates.get(MODEL))  # the vectors alone are the model
        worth = f"{gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]"
        body.append(
            [name.replace("_", " "), "-" if alone is None else with_interval(alone), with_interval(rates[gain.against]), worth]
        )
    note = (
        f"The merged list at k = {k} over all items: {with_interval(rates[MERGED])}. A channel is worth the hit rate that the "
        "merged list loses without it; its weights are then fitted without it."
    )
    users, sampled = (rates[name]["users"] for name in (MERGED, channels[0].against))
    if sampled < users:
        note += f" Lists without a channel, and of one but the vectors, are counted for a sample of {sampled:,} of these {users:,} users."
    head = ["channel", f"alone, hit_rate@{k}", "merged without it", "worth"]
    return "\n\n".join(("## Channels", note, table("What each channel is worth", head, body)))


def _chart(total: pa.Table, spans: Spans | None) -> list[str]:
    if Population.WARM not in total.column(POPULATION).to_pylist():
        return []
    data = base64.b64encode(hit_rate_png(total, spans=spans)).decode("ascii")
    return [f"![hit rate of the model and the baselines at each k, with 95% intervals](data:image/png;base64,{data})"]


def _scope_section(total: pa.Table, scope: Scope, facts: ReportFacts, gains: Sequence[Gain], spans: Spans | None) -> str:
    label = SCOPES[scope]
    meaning = label.meaning[0].upper() + label.meaning[1:]
    population = counted_population(scope)
    rows = [row for row in total.to_pylist() if row[SCOPE] == scope and row[POPULATION] == population]
    if not rows:
        return f"## {label.title}\n\n{meaning}: no user has any, so there is no number."
    ks = sorted({int(row["k"]) for row in rows})
    by_cell = {(row[SCORER], row["k"]): row for row in rows}
    names = scorers_in_order((str(row[SCORER]) for row in rows), spans)
    body = [[_strong(name, spans), *(with_interval(by_cell[name, k]) for k in ks)] for name in names]
    without = facts.users_without_truth[f"{scope}/{population}"]
    note = (
        f"{meaning}: {rows[0]['users']:,} users, {rows[0][TRUTH_COUNT]:,} items to find; "
        f"{without:,} evaluated users have none of these and do not count."
    )
    if scope is Scope.COLD:
        category = "no column is a category" if facts.category_column is None else f"by column {cell(facts.category_column)}"
        note += f" Candidates: the {facts.cold_items:,} cold items of the corpus. Popularity by category: {category}."
    lines = "\n".join(gain_line(gain) for gain in gains if gain.scope is scope)
    rates = table(f"hit_rate@k, {scope} items", ["scorer", *(f"hit_rate@{k}" for k in ks)], body)
    means = _user_means(f"Means over users, {scope} items", by_cell, names, ks, spans)
    return "\n\n".join(part for part in (f"## {label.title}", note, lines, rates, means) if part)


def _user_means(
    title: str, by_cell: dict[tuple[str, int], dict[str, Any]], names: Sequence[str], ks: Sequence[int], spans: Spans | None
) -> str:
    """Returns the table of the means over users: NDCG at each k, recall and fraction of users with a hit at the largest."""
    k = ks[-1]
    body = []
    for name in names:
        ndcg = [f"{by_cell[name, cut]['ndcg']:.3f}" for cut in ks]
        between = "[{ndcg_ci_low:.3f}, {ndcg_ci_high:.3f}]".format(**by_cell[name, k])
        users = [f"{by_cell[name, k][column]:.3f}" for column in ("user_recall", "user_hit_rate")]
        body.append([_strong(name, spans), *ndcg[:-1], f"{ndcg[-1]} {between}", *users])
    return table(title, ["scorer", *(f"NDCG@{cut}" for cut in ks), f"user_recall@{k}", f"user_hit_rate@{k}"], body)


def _facts_section(facts: ReportFacts) -> str:
    return "\n".join(
        [
            "## Who was counted",
            "",
            f"- Users with a positive event on the day{_sample(facts)}: {facts.evaluated_users:,}, with {facts.truth_pairs:,} "
            "distinct items.",
            f"- Candidates: {facts.corpus_items:,} items. Items to find that are not among them: {facts.pairs_outside_corpus:,}; "
            "they count as missed.",
            f"- Users without a vector: {facts.users_without_vector:,}; their lists are empty, and their items count as missed.",
        ]
    )


def _sample(facts: ReportFacts) -> str:
    if facts.day_users <= facts.evaluated_users:
        return ""
    return f", a sample of {facts.day_users:,} (`evaluation.max_users`)"


def _strong(name: str, spans: Spans | None = None) -> str:
    return f"**{display_name(name)}**" if name in (MODEL, MERGED) else display_name(name, spans)
