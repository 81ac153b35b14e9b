"""Evaluation: the day's truth, hits of the model and of every baseline, rates with intervals, the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.steps.gate import hit_rate_gate
from dssm_assets.steps.hit_parts import counted, scored_from, similarity_of
from dssm_assets.steps.hit_rate_report import (
    list_figures,
    lists_of,
    segment_images,
    segments_of,
    trend_images,
    trend_of,
    trend_rows,
)
from dssm_assets.steps.segments import read_cuts
from dssm_assets.steps.workspace import Check, StepResult, Workspace, window_days
from dssm_assets.storage.manifest import Manifest

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
    from dssm_assets.core.evaluation import specs
    from dssm_assets.core.evaluation.detail import hit_rate_detail as list_users
    from dssm_assets.core.evaluation.report_sections import segment_report
    from dssm_assets.core.evaluation.segments import segment_table

    settings = workspace.config.evaluation
    made_from, truth, scorer = _model(workspace, ds)
    cuts, cut_from = read_cuts(workspace, ds, scorer)
    k = settings.k[-1]
    table = list_users(scorer, truth, cuts, k=k)
    segments = segment_table(table, settings, workspace.config.seed)
    manifest = workspace.write_table(specs.HIT_RATE_DETAIL, ds, table, [*made_from, *cut_from])
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

    config, settings = workspace.config, workspace.config.evaluation
    counted, detailed = workspace.need("hit_counts", ds), workspace.need("hit_rate_detail", ds)
    counts = workspace.tables.read(counted)
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


def _model(workspace: Workspace, ds: str) -> tuple[list[Manifest], Any, Any]:
    """Returns what was read, the truth and the model as a scorer."""
    from dssm_assets.core.evaluation.scorer import model_scorer
    from dssm_assets.core.evaluation.truth import read_truth

    made_from = scored_from(workspace, ds)
    items, users, truths = (workspace.tables.read(manifest) for manifest in made_from)
    truth = read_truth(truths, items.column(col.ITEM_ID))
    return made_from, truth, model_scorer(items, users, truth.user_ids, similarity_of(workspace.config.model))
