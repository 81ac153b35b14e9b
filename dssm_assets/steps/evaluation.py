"""Evaluation: the day's truth, hits of the model and of every baseline, rates with intervals, the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.steps.gate import hit_rate_gate
from dssm_assets.steps.hit_parts import counted
from dssm_assets.steps.hit_rate_report import (
    list_figures,
    lists_of,
    segment_images,
    segments_of,
    trend_images,
    trend_of,
    trend_rows,
)
from dssm_assets.steps.list_parts import listed
from dssm_assets.steps.workspace import Check, StepResult, Workspace, window_days

POPULARITY_FACTOR = 1.2
_MODEL, _POPULARITY = "model", "popularity"


def ground_truth(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Lists what each user took on the evaluation day."""
    from dssm_assets.core.evaluation import specs
    from dssm_assets.core.evaluation.ground_truth import ground_truth as find_truth

    keys = [col.USER_ID, col.ITEM_ID]
    for ds in days:
        day = workspace.need("positive_sample", ds)
        window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
        pairs = (workspace.tables.read(manifest, keys) for manifest in window)
        table = find_truth(workspace.tables.read(day, keys), pairs)
        facts = {
            "truth_pairs": sum(map(len, table.column(col.GT_ITEMS))),
            "warm_users": pc.sum(table.column(col.IS_WARM_USER)).as_py(),
        }
        yield StepResult(workspace.write_table(specs.GROUND_TRUTH, ds, table, [day, window]), facts)


def hit_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the hits of the model and of every baseline."""
    for ds in days:
        yield counted(workspace, ds)


def hit_rate_detail(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Writes down each user's list, hits and misses."""
    for ds in days:
        yield _hit_rate_detail(workspace, ds)


def _hit_rate_detail(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.report_sections import segment_report
    from dssm_assets.core.evaluation.segments import columns_needed, segment_table

    settings, k = workspace.config.evaluation, workspace.config.evaluation.k[-1]
    manifest = listed(workspace, ds)
    rows = workspace.tables.read(manifest, columns_needed(settings.segments))
    segments = segment_table(rows, settings, workspace.config.seed)
    facts = {"k": k, "segments": segments.to_pylist()}
    return StepResult(manifest, facts, (), segment_report(ds, segments, k), segment_images(segments, k))


def total_hit_rate(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Adds up the hits and writes the report."""
    for ds in days:
        yield _total_hit_rate(workspace, ds)


def _total_hit_rate(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation import specs
    from dssm_assets.core.evaluation.report import ReportFacts, render_report
    from dssm_assets.core.evaluation.totals import gains_over_best
    from dssm_assets.core.evaluation.totals import total_hit_rate as add_up
    from dssm_assets.steps.hit_cells import StoredCells

    config, settings = workspace.config, workspace.config.evaluation
    counted, detailed = workspace.need("hit_counts", ds), workspace.need("hit_rate_detail", ds)
    counts = StoredCells(workspace, counted)
    samples, seed, top = settings.bootstrap_samples, config.seed, settings.k[-1]
    total = add_up(counts, settings.k, samples, seed)
    segments, lists, trend = segments_of(workspace, detailed), lists_of(workspace, detailed), trend_of(workspace, ds, total)
    gains = gains_over_best(counts, total, k=top, samples=samples, seed=seed)
    stored: Any = counted.facts["report"]
    told = ReportFacts(**stored)
    report = render_report(day=ds, total=total, segments=segments, gains=gains, facts=told, lists=lists, trend=trend)
    manifest = workspace.write_table(specs.TOTAL_HIT_RATE, ds, total, [counted, detailed])
    rates = {(row["scorer"], row["scope"], row["k"]): row for row in total.to_pylist() if row["population"] == "warm"}
    checks = (_beats_popularity(rates, top), hit_rate_gate(workspace, ds, counts, total))
    facts: dict[str, Any] = {**_headline(rates, top), **list_figures(lists, top)}
    facts |= {"segments": segments.to_pylist(), "trend": trend_rows(trend)}
    images = {**segment_images(segments, top), **trend_images(trend, top)}
    return StepResult(manifest, facts, checks, report, images)


def _headline(rates: dict[Any, Any], top: int) -> dict[str, float]:
    """Returns the figures the UI plots: the warm hit rates of the model at every k and of every baseline at the largest."""
    facts = {
        f"hit_rate@{k}": row["hit_rate"] for (scorer, scope, k), row in rates.items() if (scorer, scope) == (_MODEL, "all")
    }
    for (scorer, scope, k), row in rates.items():
        if k == top and scorer == _MODEL:
            facts[f"hit_rate@{k} {scope}"] = row["hit_rate"]
        elif k == top and scope == "all":
            facts[f"hit_rate@{k} of {scorer}"] = row["hit_rate"]
    model = rates.get((_MODEL, "all", top))
    if model is not None:
        facts |= {f"hit_rate@{top} ci_low": model["ci_low"], f"hit_rate@{top} ci_high": model["ci_high"]}
        facts |= {"user_recall": model["user_recall"], "user_hit_rate": model["user_hit_rate"]}
    return facts


def _beats_popularity(rates: dict[Any, Any], top: int) -> Check:
    name = "beats_popularity"
    if (_MODEL, "all", top) not in rates or (_POPULARITY, "all", top) not in rates:
        return Check(name, False, "no warm user took a warm item on this day, so there is nothing to compare")
    ours, theirs = rates[_MODEL, "all", top]["hit_rate"], rates[_POPULARITY, "all", top]["hit_rate"]
    sentence = (
        f"warm hit_rate@{top} is {ours:.4f}, popularity {theirs:.4f}: {ours / theirs if theirs else float('inf'):.2f} times"
    )
    return Check(name, ours >= POPULARITY_FACTOR * theirs, sentence, {"model": ours, "popularity": theirs})
