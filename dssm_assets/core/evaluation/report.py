"""Writes the report of a day: one markdown text that answers "is the model any good?" on its own.

Belongs here: the text of all sections and its tables. Does not belong here: numbers (`rates.py`, `segments.py`,
`list_quality.py`), charts (`charts.py`), names of scorers and scopes (`labels.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, SEGMENT, TRUTH_COUNT, VALUE
from dssm_assets.core.evaluation.charts import hit_rate_png
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY, CHANNEL, MERGED, MERGED_WITHOUT, MODEL
from dssm_assets.core.evaluation.labels import SCOPES, TREND_SCOPES, Spans, display_name, scorers_in_order
from dssm_assets.core.evaluation.rates import DAY, Gain, best_baseline, not_warm_frac, rows_of_cell
from dssm_assets.core.evaluation.segments import ItemPopularity
from dssm_assets.core.names import Population, Scope, counted_population

CELL_CHARS: Final = 60
MIN_SEGMENT_ITEMS: Final = 100
"""A segment can be called the worst only with this many items to find; with fewer, chance decides."""
READING: Final = (
    "How to read this: hit_rate@k is the fraction of the items that users interacted with on the day that were among the first "
    "k items of their lists. 0.25 means that a quarter of these items was found. Brackets are 95% intervals from a bootstrap over "
    "users: with other users the number would likely have stayed inside. All scorers see the same users (single channels may see a "
    "sample of them), so compare two scorers by the gain stated above, not by whether their brackets overlap. The second table of a "
    "scope has means over users. NDCG@k is 1 if the list begins with the user's items, and less the further down they are. User "
    "recall@k is the fraction of a user's items that was found, user hit rate@k the fraction of users with at least one item found. "
    "Only known users and known items count, unless a table says otherwise."
)

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class ReportFacts:
    """Counts of evaluated and left-out users, items and pairs.

    Attributes:
        evaluated_users: users with a positive event on the day; if only a sample was scored, the sample.
        users_without_truth: "scope/population" -> evaluated users without an item to find there.
        users_without_vector: evaluated users without a vector; their lists are empty.
        truth_pairs: distinct (user, item) pairs of evaluated users on the day.
        pairs_outside_corpus: truth pairs with an item that has no vector; they count as missed.
        corpus_items: candidates.
        day_users: users with a positive event on the day, 0 if all were evaluated.
        cold_items: candidates without any event before the day.
        category_column: column of item_table used as category to rank cold items. None: no column is a category.
        recent_hours: half-life of recent popularity. None: not known.
        recent_border: a remark if this half-life is the shortest or the longest of `evaluation.recent`.
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
    recent_hours: float | None = None
    recent_border: str | None = None


@dataclass(frozen=True)
class ListFacts:
    """Quality of the model's lists on a day.

    Attributes:
        quality: table from `list_quality`.
        overlap: table from `list_overlap`; no rows if there is no earlier day.
        previous_day: the earlier evaluation day in `overlap`.
        popularity: popularity of the corpus.
    """

    quality: pa.Table
    overlap: pa.Table
    previous_day: str | None
    popularity: ItemPopularity


def render_report(
    *,
    day: str,
    total: pa.Table,
    segments: Mapping[str, pa.Table],
    gains: Sequence[Gain],
    facts: ReportFacts,
    lists: ListFacts,
    trend: pa.Table,
    channels: Sequence[Gain] = (),
    people: str = "",
    spans: Spans | None = None,
    span_days: int = 1,
) -> str:
    """Returns the report as markdown with its chart embedded; the same input gives the same text.

    Args:
        day: the evaluation day, YYYY-MM-DD, or the first and the last day of its span.
        segments: as for `segment_section`, the served list first.
        gains: the merged list and the model against the best baseline, from `gains_over_best`.
        trend: hit rates of the last days, this day included, from `trend_table`.
        channels: each channel's worth, from `channel_gains`.
        people: the section on single people, or "".
        spans: how far back baselines read, for their names.
    """
    k = max(total.column("k").to_pylist())
    sections = [f"# Recall on {day}", headline(total, gains, channels, segments), READING]
    if Population.WARM in total.column(POPULATION).to_pylist():
        data = base64.b64encode(hit_rate_png(total, spans=spans)).decode("ascii")
        sections.append(
            f"![hit rate of the model and the baselines at each k, with 95% intervals](data:image/png;base64,{data})"
        )
    sections += [scope_section(total, scope, spans, gains, facts) for scope in Scope]
    sections += [channel_section(total, channels)] if channels else []
    sections += [segment_section(segments, k), list_section(lists), trend_section(trend, k), people, _facts_section(facts)]
    text = "\n\n".join(filter(None, sections)) + "\n"
    return text if span_days == 1 else text.replace("on the day", f"on these {span_days} days")


def segment_report(day: str, segments: Mapping[str, pa.Table], k: int) -> str:
    """Returns the segments of a day as a text of their own. For `segments` see `segment_section`."""
    return f"# Hit rate by segment on {day}\n\n{segment_section(segments, k)}\n"


def rates_report(day: str, total: pa.Table, spans: Spans | None) -> str:
    """Returns only the rates of a day: all scorers for known users and items, in every scope.

    For other users, and for all users, it has only the model, the merged list and the best baseline of each scope.
    """
    sections = [scope_section(total, scope, spans) for scope in Scope]
    k = max(total.column("k").to_pylist())
    body = []
    for scope, population in product(Scope, Population):
        rows = rows_of_cell(total, scope, k, population)
        if rows:
            best = best_baseline(rows)
            counts = [f"{rows[scorers_in_order(rows)[0]][column]:,}" for column in ("users", TRUTH_COUNT)]
            shown = [f"{rows[name]['hit_rate']:.3f}" if name in rows else "-" for name in (MODEL, MERGED)]
            baseline = "-" if best is None else f"{display_name(best, spans)} {rows[best]['hit_rate']:.3f}"
            body.append([f"{scope}, {population}".replace("_", " "), *counts, *shown, baseline])
    head = ["items, users", "users", "items to find", "model", "merged", "best baseline"]
    populations = table(f"Known (warm), other (not warm) and all users and items, hit_rate@{k}", head, body)
    return "\n\n".join((f"# Hit rates on {day}", *sections, "## Known, other and all users", populations))


def headline(total: pa.Table, gains: Sequence[Gain], channels: Sequence[Gain], segments: Mapping[str, pa.Table]) -> str:
    """Returns the day's figures as a table, most important first, and sentences on the worst.

    The first rows are the served merged list over all items: for known users and items, then for everyone. Rows of the vectors
    alone follow: on items new to a user (their purpose), over all items (the reference solution's figure), on items without events.

    Args:
        gains: gains of the model and of the merged list over the best baseline of each scope.
        segments: scorer -> its hit rate per segment, the served list first.
    """
    k = max(total.column("k").to_pylist())
    warm, everyone = Population.WARM, Population.ALL
    has_merged = MERGED in rows_of_cell(total, Scope.ALL, k, everyone)
    served, words = (MERGED, "merged list") if has_merged else (MODEL, "vectors alone")
    share = not_warm_frac(total, Scope.ALL, k, served)
    figures: tuple[tuple[str, str, Scope, Population, tuple[str, ...]], ...] = (
        ("merged list, all items", MERGED, Scope.ALL, warm, ()),
        (f"{words}, all users and items of the day, {share:.0%} of these not warm", served, Scope.ALL, everyone, ()),
        ("vectors alone, items new to the user, its own history left out", MODEL, Scope.UNSEEN, warm, ("popularity", "ease")),
        ("vectors alone, all items: the figure of the reference solution", MODEL, Scope.ALL, warm, ()),
        ("vectors alone, cold items among themselves", MODEL, Scope.COLD, everyone, (CATEGORY_POPULARITY,)),
    )
    body = []
    for words, scorer, scope, population, baselines in figures:
        rows = rows_of_cell(total, scope, k, population)
        if scorer not in rows:
            continue
        row = rows[scorer]
        gain = next((gain for gain in gains if (gain.scorer, gain.scope, gain.population) == (scorer, scope, population)), None)
        names = dict.fromkeys((*baselines, *(() if gain is None else (gain.against,))))
        compared = [f"{display_name(name)} {rows[name]['hit_rate']:.3f}" for name in names if name in rows]
        ahead = "-" if gain is None else f"{_difference(gain)}, {gain.position.removesuffix(' of').removesuffix(' from')}"
        body.append([f"**{words}**", f"**{with_interval(row)}**", f"{row[TRUTH_COUNT]:,}", ", ".join(compared) or "-", ahead])
    if not body:
        return "No known user has a known item to find."
    head = ["", f"hit_rate@{k}", "items to find", "compared with", "gain over the best baseline"]
    worst = _worst(gains, channels, segments)
    figures_table = table("The figures of the day, the most important first", head, body)
    return "\n\n".join([figures_table, *(["Where it looks worst:", "\n".join(worst)] if worst else [])])


def _worst(gains: Sequence[Gain], channels: Sequence[Gain], segments: Mapping[str, pa.Table]) -> list[str]:
    lines = []
    behind = min((gain for gain in gains if gain.ci_low <= 0), key=lambda gain: gain.gain, default=None)
    if behind is not None:
        lines.append(f"{_gain_line(behind)}.")
    for gain in channels:
        if gain.against == f"{MERGED_WITHOUT}vectors" and gain.ci_low <= 0:
            found = "more" if gain.ci_high < 0 else "nearly as much"
            lines.append(f"- The merged list would find {found} without the vectors: they are worth {_difference(gain)}.")
    served, by_segment = next(iter(segments.items()))
    large = [row for row in by_segment.to_pylist() if row[TRUTH_COUNT] >= MIN_SEGMENT_ITEMS]
    if large:
        row = min(large, key=lambda row: (row["hit_rate"], str(row[SEGMENT]), str(row[VALUE])))
        segment = cell(f"{row[SEGMENT]} {row[VALUE]}".replace("_", " "))
        lines.append(
            f"- {_capital(display_name(served))}, segment {segment}: {with_interval(row)} of {row[TRUTH_COUNT]:,} items to find."
        )
    return lines


def scope_section(
    total: pa.Table, scope: Scope, spans: Spans | None, gains: Sequence[Gain] = (), facts: ReportFacts | None = None
) -> str:
    """Returns the section of one scope: every scorer's hit rates at each k with intervals, and means over users."""
    label, population = SCOPES[scope], counted_population(scope)
    meaning = _capital(label.meaning)
    ks = sorted(set(total.column("k").to_pylist()))
    by_k = {k: rows_of_cell(total, scope, k) for k in ks}
    k, last_rows = ks[-1], by_k[ks[-1]]
    if not last_rows:
        return f"## {label.title}\n\n{meaning}: no known user has such a known item to find, so there is no number."
    names = scorers_in_order(last_rows)
    first = last_rows[names[0]]  # parts of merged lists may be scored for a sample of the users
    note = f"{meaning}: {first['users']:,} users, {first[TRUTH_COUNT]:,} items to find."
    if facts is not None:
        note = f"{note[:-1]}; {facts.users_without_truth[f'{scope}/{population}']:,} evaluated users have no such item and do not count."
    if facts is not None and scope is Scope.COLD:
        category = "no column is a category" if facts.category_column is None else f"by column {cell(facts.category_column)}"
        note += f" Candidates: the {facts.cold_items:,} cold items of the corpus. Popularity by category: {category}."
    rates, means = [], []
    for name in names:
        cells, last = [by_k[cut][name] for cut in ks], last_rows[name]
        shown = _name(name, spans)
        rates.append([shown, *map(with_interval, cells)])
        interval = f"[{last['ndcg_ci_low']:.3f}, {last['ndcg_ci_high']:.3f}]"
        ndcg = [f"{row['ndcg']:.3f}" for row in cells]
        means.append(
            [shown, *ndcg[:-1], f"{ndcg[-1]} {interval}", f"{last['user_recall']:.3f}", f"{last['user_hit_rate']:.3f}"]
        )
    lines = "\n".join(_gain_line(gain) for gain in gains if gain.scope is scope)
    columns = [*(f"NDCG@{cut}" for cut in ks), f"user recall@{k}", f"user hit rate@{k}"]
    tables = (
        table(f"hit_rate@k, {scope} items", ["scorer", *(f"hit_rate@{cut}" for cut in ks)], rates),
        table(f"Means over users, {scope} items", ["scorer", *columns], means),
    )
    return "\n\n".join(filter(None, (f"## {label.title}", note, lines, *tables)))


def channel_section(total: pa.Table, channels: Sequence[Gain]) -> str:
    """Returns each channel's hit rate alone, the merged list's without it, the difference, and whether that is surely a gain."""
    k = channels[0].k
    rates = rows_of_cell(total, Scope.ALL, k)
    body = []
    for gain in channels:
        name = gain.against.removeprefix(MERGED_WITHOUT)
        alone = rates.get(f"{CHANNEL}{name}", rates.get(MODEL))  # the vectors alone are the model
        surely = "yes" if gain.ci_low > 0 else "no, it costs" if gain.ci_high < 0 else "not shown"
        without = with_interval(rates[gain.against])
        body.append([name.replace("_", " "), _interval_or_dash(alone), without, _difference(gain), surely])
    note = (
        f"The merged list at k = {k} over all items: {with_interval(rates[MERGED])}. A channel is worth the hit rate that the "
        "merged list loses without it; its weights are then fitted without it. A channel that is not surely worth its place stays: "
        "on one day of a public log, a rule that left such channels out gained .029 by one of them and lost .020 by another."
    )
    users, sampled = (rates[name]["users"] for name in (MERGED, channels[0].against))
    if sampled < users:
        note += f" All of this table except the vectors alone is counted for a sample of {sampled:,} of these {users:,} users."
    head = ["channel", f"alone, hit_rate@{k}", "merged without it", "worth", "surely worth its place"]
    return "\n\n".join(("## Channels", note, table("What each channel is worth", head, body)))


def segment_section(segments: Mapping[str, pa.Table], k: int) -> str:
    """Returns one table per segment: users, items to find, and each scorer's hit rate with its interval.

    Args:
        segments: scorer -> its hit rates from `segment_table`, over the same users; at least one.
    """
    names = [display_name(scorer) for scorer in segments]
    note = (
        f"hit_rate@{k} of {' and '.join(f'the {name}' for name in names)}. Users and items that are not warm count here too, so the "
        "rows of a segment add up to the population `all`. A row's users are those with items to find in it. Brackets are 95% intervals over "
        "these users."
    )
    tables = []
    rows_of_values = zip(*(one.to_pylist() for one in segments.values()), strict=True)
    for name, group in groupby(rows_of_values, key=lambda rows: str(rows[0][SEGMENT])):
        label = cell(name.replace("_", " "))
        body = [
            [cell(str(rows[0][VALUE])), f"{rows[0]['users']:,}", f"{rows[0][TRUTH_COUNT]:,}", *map(with_interval, rows)]
            for rows in group
        ]
        tables.append(table(f"By {label}, hit_rate@{k}", [label, "users", "items to find", *names], body))
    return "\n\n".join(["## By segment", note, *(tables or ["No segment has users."])])


def list_section(facts: ListFacts) -> str:
    """Returns coverage, popularity bias, novelty and the overlap with the previous evaluation day, per k."""
    if not facts.quality.num_rows:
        return "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."
    note = (
        f"The model's lists for {facts.quality.column('users')[0].as_py():,} evaluated users. Coverage: percentage of the "
        f"candidates that are in any list. Head items: percentage of list entries among the {facts.popularity.is_head.sum():,} most popular "
        f"items (1% of the items with events in the window); these have {facts.popularity.head_frac:.1%} of the window's events. Novelty: "
        "mean -log2 of an item's fraction of the window's events, in bits; one bit more means half as popular."
    )
    if not facts.overlap.num_rows:
        note += " There is no earlier evaluation day to compare the lists with."
    else:
        note += (
            f" Kept since {facts.previous_day}: mean percentage of a user's list already in the list of that day. Jaccard: items "
            f"in both lists / items in either. Both over {facts.overlap.column('users')[0].as_py():,} users with a list on both days."
        )
    overlap = {row["k"]: [f"{row['kept']:.1%}", f"{row['jaccard']:.3f}"] for row in facts.overlap.to_pylist()}
    body = []
    for row in facts.quality.to_pylist():
        shown = [f"{row['coverage']:.2%}", f"{row['popularity_bias']:.1%}", f"{row['novelty']:.2f}"]
        body.append([str(row["k"]), *shown, *overlap.get(row["k"], ["-", "-"])])
    head = ["k", "coverage", "head items", "novelty", "kept", "Jaccard"]
    return f"## The lists\n\n{note}\n\n{table(f'Lists of the {display_name(MODEL)}', head, body)}"


def trend_section(trend: pa.Table, k: int) -> str:
    """Returns the hit rates of the last evaluation days, newest first: the model with its interval, and the baselines."""
    rows = trend.to_pylist()
    title = "## The last evaluation days"
    if not rows:
        return f"{title}\n\nNo day has known users with known items to find, so there is no trend."
    cells = {(row[DAY], row[SCOPE], row[SCORER]): row for row in rows}
    names = scorers_in_order(str(row[SCORER]) for row in rows if row[SCOPE] == Scope.ALL)
    baselines = [name for name in names if name not in (MODEL, MERGED)]
    shown = [(Scope.ALL, MERGED)] if MERGED in names else []
    shown += [(scope, MODEL) for scope in TREND_SCOPES]
    head = [_name(name) if scope is Scope.ALL else f"{_name(name)}, {scope}" for scope, name in shown]
    body = []
    for day in sorted({str(row[DAY]) for row in rows}, reverse=True):
        users = cells.get((day, Scope.ALL, MODEL))
        others = [cells.get((day, Scope.ALL, name)) for name in baselines]
        counts = "-" if users is None else f"{users['users']:,}"
        intervals = [_interval_or_dash(cells.get((day, *key))) for key in shown]
        body.append([day, counts, *intervals, *("-" if row is None else f"{row['hit_rate']:.4f}" for row in others)])
    head = ["day", "users", *head, *map(display_name, baselines)]
    return f"{title}\n\n{table(f'hit_rate@{k} by day, known users and known items', head, body)}"


def _facts_section(facts: ReportFacts) -> str:
    is_sample = facts.day_users > facts.evaluated_users
    sample = f", a sample of {facts.day_users:,} (`evaluation.max_users`)" if is_sample else ""
    border = f"\n- {facts.recent_border}." if facts.recent_border else ""
    return (
        "## Who was counted\n\n"
        f"- Users with a positive event on the day{sample}: {facts.evaluated_users:,}, with {facts.truth_pairs:,} distinct items.\n"
        f"- Candidates: {facts.corpus_items:,} items. Items to find that are not among them: {facts.pairs_outside_corpus:,}; "
        "they count as missed.\n"
        f"- Users without a vector: {facts.users_without_vector:,}; the vectors have no list for them and miss their items.{border}"
    )


def table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a markdown table with a title; the first column is aligned left, the others right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join([f"**{title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


def cell(text: str) -> str:
    """Makes a text from the data fit a table cell: one line, at most 60 characters, markdown escaped."""
    line = " ".join(text.split())
    short = line if len(line) <= CELL_CHARS else line[: CELL_CHARS - 1] + "…"
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|~$" else letter for letter in short)


def with_interval(row: _Row) -> str:
    """Formats the hit rate of a row with its 95% interval, to three decimals."""
    return f"{row['hit_rate']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _interval_or_dash(row: _Row | None) -> str:
    return "-" if row is None else with_interval(row)


def _difference(gain: Gain) -> str:
    return f"{gain.gain:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]"


def _gain_line(gain: Gain) -> str:
    users = "" if gain.population is counted_population(gain.scope) else " of all users"
    return (
        f"- {_capital(display_name(gain.scorer))}, {gain.scope} items{users}: {gain.position} the best baseline, {display_name(gain.against)}, "
        f"by {_difference(gain)} at k = {gain.k}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _name(scorer: str, spans: Spans | None = None) -> str:
    name = display_name(scorer, spans)
    return f"**{name}**" if scorer in (MODEL, MERGED) else name
