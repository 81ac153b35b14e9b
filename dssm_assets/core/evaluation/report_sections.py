"""Sections of the report that look beyond one number: segments, what the lists are like, the trend.

Belongs here: words and tables. Does not belong here: their numbers (`segments.py`, `list_quality.py`, `trend.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from dssm_assets.core.columns import SEGMENT, VALUE
from dssm_assets.core.evaluation.chart_style import display_name, scorers_in_order
from dssm_assets.core.evaluation.hit_counts import SCOPE, SCORER, TRUTH_COUNT
from dssm_assets.core.evaluation.item_popularity import TIERS, ItemPopularity, Tier
from dssm_assets.core.evaluation.markdown import cell, table, with_interval
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.trend import DAY
from dssm_assets.core.evaluation.truth import Scope


@dataclass(frozen=True)
class ListFacts:
    """What the model's lists of a day are like.

    Attributes:
        quality: as of `list_quality`.
        overlap: as of `list_overlap`, without rows where there is nothing to compare with.
        day_before: the evaluation day that overlap compares with, None where there is none.
        head_items: items in the head.
        head_frac: the head's share of what was taken in the window.
    """

    quality: pa.Table
    overlap: pa.Table
    day_before: str | None
    head_items: int
    head_frac: float


def list_facts(quality: pa.Table, overlap: pa.Table, day_before: str | None, popularity: ItemPopularity) -> ListFacts:
    """Returns the facts with the size and the share of the head."""
    head = int((popularity.tier == TIERS.index(Tier.HEAD)).sum())
    return ListFacts(quality, overlap, day_before if overlap.num_rows else None, head, popularity.head_frac)


def segment_report(day: str, segments: pa.Table, k: int) -> str:
    """Returns the segments of a day as a text of their own."""
    return f"# Hit rate by segment on {day}\n\n{segment_section(segments, k)}\n"


def segment_section(segments: pa.Table, k: int) -> str:
    """Returns one table per segment: users, items to find, hits, hit rate with its interval."""
    note = (
        f"The model at k = {k}. Everything these users took counts here, new users and new items as well, so the rows of a "
        "segment add up to the population `all`. Brackets are 95% intervals over the users of the row, who are those with "
        "something to find in it."
    )
    parts = ["## By segment", note]
    for name, rows in groupby(segments.to_pylist(), key=lambda row: str(row[SEGMENT])):
        body = [[cell(str(row[VALUE])), *(f"{row[key]:,}" for key in _COUNTS), with_interval(row)] for row in rows]
        parts.append(table([cell(name.replace("_", " ")), "users", "items to find", "hits", f"hit_rate@{k}"], body))
    return "\n\n".join(parts if segments.num_rows else [*parts, "No segment has users."])


_COUNTS = ("users", TRUTH_COUNT, "hits")


def list_section(facts: ListFacts) -> str:
    """Returns coverage, popularity bias, novelty and the overlap with the evaluation day before, per k."""
    if not facts.quality.num_rows:
        return "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."
    note = (
        f"The model's lists for {facts.quality.column('users')[0].as_py():,} evaluated users. Coverage: share of the candidates "
        f"that stand in any list. In the head: share of the places taken by the {facts.head_items:,} most taken items (1% of "
        f"those taken in the window), which were {facts.head_frac:.1%} of what was taken. Novelty: mean -log2 of an item's "
        "share of what was taken, in bits; one bit more is half as popular."
    )
    overlap = {row["k"]: row for row in facts.overlap.to_pylist()}
    if facts.day_before is None:
        note += " There is no earlier evaluation day to compare the lists with."
    else:
        users = facts.overlap.column("users")[0].as_py()
        note += (
            f" Kept since {facts.day_before}: mean share of a user's list that stood in it on that day, Jaccard: items in both "
            f"by items in either, over {users:,} users with a list on both days."
        )
    body = [[*_quality_cells(row), *_overlap_cells(overlap.get(row["k"]))] for row in facts.quality.to_pylist()]
    return f"## The lists\n\n{note}\n\n{table(['k', 'coverage', 'in the head', 'novelty', 'kept', 'Jaccard'], body)}"


def _quality_cells(row: dict[str, Any]) -> list[str]:
    return [str(row["k"]), f"{row['coverage']:.2%}", f"{row['popularity_bias']:.1%}", f"{row['novelty']:.2f}"]


def _overlap_cells(row: dict[str, Any] | None) -> list[str]:
    return ["-", "-"] if row is None else [f"{row['kept']:.1%}", f"{row['jaccard']:.3f}"]


def trend_section(trend: pa.Table, k: int) -> str:
    """Returns the hit rates of the last evaluation days, the newest first: the model with its interval, the baselines."""
    rows = trend.to_pylist()
    title = f"## The last evaluation days\n\nhit_rate@{k}, known users and known items"
    if not rows:
        return f"{title}: no day has any, so there is no trend."
    names = scorers_in_order(sorted({str(row[SCORER]) for row in rows if row[SCOPE] == Scope.ALL}))
    cells = {(row[DAY], row[SCOPE], row[SCORER]): row for row in rows}
    days = sorted({str(row[DAY]) for row in rows}, reverse=True)
    baselines = [name for name in names if name != ScorerName.MODEL]
    head = ["day", "users", "**model**", "**model**, discovery", *map(display_name, baselines)]
    body = [[day, *_model_cells(cells, day), *(_rate(cells.get((day, Scope.ALL, name))) for name in baselines)] for day in days]
    return f"{title}.\n\n{table(head, body)}"


def _model_cells(cells: dict[tuple[str, str, str], dict[str, Any]], day: str) -> list[str]:
    ours, fresh = (cells.get((day, scope, ScorerName.MODEL)) for scope in (Scope.ALL, Scope.DISCOVERY))
    shown = ["-" if row is None else with_interval(row) for row in (ours, fresh)]
    return ["-" if ours is None else f"{ours['users']:,}", *shown]


def _rate(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['hit_rate']:.4f}"
