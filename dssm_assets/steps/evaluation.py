"""The assets of the evaluation: the day's truth, hits, lists, rates with the report and the gate.

Read in this order: `ground_truth`, `hit_counts` (`scoring.py`), `hit_rate_detail`, `total_hit_rate`, then the parts of the report.

Does not belong here: scoring a day (`scoring.py`, imported only where needed because it loads scipy), definitions of the rates
(`core/evaluation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.columns import POPULATION, SCORER
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation import gate, truth
from dssm_assets.core.evaluation.charts import segment_png, trend_png
from dssm_assets.core.evaluation.evaluation_tables import (
    GROUND_TRUTH,
    HIT_COUNTS,
    HIT_RATE_DETAIL,
    MERGED,
    MERGED_WITHOUT,
    MODEL,
    TOTAL_HIT_RATE,
    tier_scope,
)
from dssm_assets.core.evaluation.labels import Spans
from dssm_assets.core.evaluation.list_quality import LISTS, OVERLAP_SCHEMA, list_overlap, list_quality
from dssm_assets.core.evaluation.rates import (
    TREND_COLUMNS,
    Gain,
    HitCells,
    Rows,
    channel_gains,
    gains_over_best,
    rows_of_cell,
    split_cells,
    sum_hits,
    trend_table,
)
from dssm_assets.core.evaluation.report import ListFacts, ReportFacts, render_report, segment_report
from dssm_assets.core.evaluation.segments import TIERS, columns_needed, segment_table, tier_columns, with_hits_of
from dssm_assets.core.names import Population, Scope
from dssm_assets.steps.people import report_people
from dssm_assets.steps.user_segments import read_item_popularity
from dssm_assets.steps.workspace import Check, StepResult, Workspace, each_day, partitions_before, truth_days, window_days
from dssm_assets.storage.local_files import ScratchFolder, map_arrow, write_arrow
from dssm_assets.storage.manifest import Manifest

TREND_DAYS: Final = 30
"""The trend shows at most so many evaluation days."""
POPULARITY: Final = "popularity"
POPULARITY_FACTOR: Final = 1.2
"""The model's hit rate must be this many times popularity's."""


@each_day
def ground_truth(workspace: Workspace, ds: str) -> StepResult:
    """Writes each user's items of the evaluation day. If `evaluation.span_days` is above 1, also of the days after it."""
    keys = [col.USER_ID, col.ITEM_ID]
    span = workspace.need_all("positive_sample", truth_days(ds, workspace.config.evaluation.span_days))
    window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
    pairs = (workspace.tables.read(manifest, keys) for manifest in window)
    table = truth.ground_truth(pa.concat_tables([workspace.tables.read(day, keys) for day in span]), pairs)
    facts = {
        "truth_pairs": sum(map(len, table.column(col.GT_ITEMS))),
        "warm_users": pc.sum(table.column(col.IS_WARM_USER)).as_py(),
    }
    return StepResult(workspace.write_table(GROUND_TRUTH, ds, table, [span, window]), facts)


@each_day
def hit_rate_detail(workspace: Workspace, ds: str) -> StepResult:
    """Writes each user's list, hits and misses, and reports the hit rate of each segment."""
    from dssm_assets.steps.scoring import write_lists_of_day

    k, manifest = workspace.config.evaluation.k[-1], write_lists_of_day(workspace, ds)
    segments = _segment_rates(workspace, manifest, {})
    facts = {"k": k, "segments": _segment_rows(segments)}
    return StepResult(manifest, facts, (), segment_report(ds, segments, k), _segment_images(segments, k))


@each_day
def total_hit_rate(workspace: Workspace, ds: str) -> StepResult:
    """Sums hits to rates, writes the report and runs the gate."""
    config, settings = workspace.config, workspace.config.evaluation
    counts, detail = workspace.need(HIT_COUNTS.name, ds), workspace.need(HIT_RATE_DETAIL.name, ds)
    cells = read_cells(workspace, counts)
    k, resampling = settings.k[-1], {"samples": settings.bootstrap_samples, "seed": config.seed}
    total = sum_hits(cells, settings.k, settings.bootstrap_samples, config.seed)
    segments, lists = _segment_rates(workspace, detail, cells), _describe_lists(workspace, detail)
    trend = _trend(workspace, ds, total)
    merged_gains, gains = (gains_over_best(cells, total, k=k, scorer=name, **resampling) for name in (MERGED, MODEL))
    channels = channel_gains(cells, total, k=k, **resampling)
    stored: Any = counts.facts["report"]
    counted = ReportFacts(**stored)
    spans = Spans.from_config(config, ds, counted.recent_hours)
    last = truth_days(ds, settings.span_days)[-1]
    people = report_people(workspace, ds, cells, total)
    report = render_report(
        day=ds if last == ds else f"{ds} to {last}",
        total=total,
        segments=segments,
        gains=[*merged_gains, *gains],
        facts=counted,
        lists=lists,
        trend=trend,
        channels=channels,
        people=people,
        spans=spans,
        span_days=settings.span_days,
    )
    verdict = hit_rate_gate(workspace, ds, cells, total, spans)
    stated = {"passed": verdict.is_passed, "sentence": verdict.description}
    manifest = workspace.write_table(
        TOTAL_HIT_RATE, ds, total, [counts, detail], gate=stated, recent_hours=counted.recent_hours
    )
    rates = {scope: rows_of_cell(total, scope, k) for scope in Scope}
    checks = (_beats_popularity(rates[Scope.ALL], k), verdict)
    headline = _headline(rates, merged_gains or gains, k) | {"gate": verdict.facts["verdict"]}
    worth = {gain.against.removeprefix(MERGED_WITHOUT): gain.gain for gain in channels}
    facts = _plotted_figures(total, lists, worth, settings.k) | {
        f"rates@{k}": {str(scope): {name: row["hit_rate"] for name, row in of.items()} for scope, of in rates.items() if of},
        f"worth@{k} of channels": worth,
        "segments": _segment_rows(segments),
    }
    images = _segment_images(segments, k) | ({"hit_rate_trend": trend_png(trend, k)} if trend.num_rows else {})
    return StepResult(manifest, facts, checks, report, images, headline)


def hit_rate_gate(workspace: Workspace, ds: str, hit_counts: HitCells, total: pa.Table, spans: Spans) -> Check:
    """Judges the day's model against the gate's limits.

    With `gate.is_blocking` false, a failure is a warning, and the bundle is published all the same.
    """
    config = workspace.config
    previous = partitions_before(workspace, TOTAL_HIT_RATE.name, ds, config.gate.last_partitions)
    report = gate.hit_rate_gate(
        hit_counts,
        total,
        {manifest.ds: workspace.tables.read(manifest) for manifest in previous},
        config.gate,
        k=config.evaluation.k[-1],
        samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
        spans=spans,
    )
    return Check("hit_rate_gate", report.passed, report.sentence, report.facts, is_blocking=config.gate.is_blocking)


def _beats_popularity(rates: Rows, k: int) -> Check:
    name = "beats_popularity"
    if MODEL not in rates or POPULARITY not in rates:
        return Check(name, True, "no warm user has a warm item to find on this day, so there is nothing to compare")
    model, popularity = rates[MODEL]["hit_rate"], rates[POPULARITY]["hit_rate"]
    ratio = model / popularity if popularity else float("inf")
    sentence = f"warm hit_rate@{k} of the two-tower model is {model:.4f}, of popularity {popularity:.4f}: {ratio:.2f} times"
    return Check(name, model >= POPULARITY_FACTOR * popularity, sentence, {"model": model, "popularity": popularity})


def _served_row(rates: Rows) -> Mapping[str, Any] | None:
    return rates.get(MERGED, rates.get(MODEL))


def _headline(rates: Mapping[Scope, Rows], gains: Sequence[Gain], k: int) -> dict[str, float]:
    served = _served_row(rates[Scope.ALL])
    if served is None:
        return {}
    figures = {f"hit_rate@{k}": served["hit_rate"]}
    of_served = [gain for gain in gains if (gain.scope, gain.population) == (Scope.ALL, Population.WARM)]
    figures |= {f"hit_rate@{k} gain over the best baseline": gain.gain for gain in of_served}
    for scope, words in ((Scope.ALL, "of the vectors"), (Scope.UNSEEN, "of the vectors, unseen")):
        if MODEL in rates[scope]:
            figures[f"hit_rate@{k} {words}"] = rates[scope][MODEL]["hit_rate"]
    return figures


def _plotted_figures(total: pa.Table, lists: ListFacts, worth: Mapping[str, float], ks: Sequence[int]) -> dict[str, Any]:
    """Returns the figures for the UI's charts: few, because the UI draws every number."""
    k, figures = ks[-1], dict[str, Any]()
    short, long = (_served_row(rows_of_cell(total, Scope.ALL, cut)) for cut in (ks[0], k))
    if short and long:
        figures |= {f"hit_rate@{ks[0]}": short["hit_rate"], f"ndcg@{k}": long["ndcg"]}
    if ChannelName.VECTORS in worth:
        figures[f"worth@{k} of the vectors"] = worth[ChannelName.VECTORS]
    figures |= {f"item_coverage@{k} of the vectors": row["coverage"] for row in lists.quality.to_pylist() if row["k"] == k}
    figures |= {f"kept_since_day_before@{k} of the vectors": row["kept"] for row in lists.overlap.to_pylist() if row["k"] == k}
    return figures


def _segment_rates(workspace: Workspace, detail: Manifest, cells: HitCells) -> dict[str, pa.Table]:
    settings, seed = workspace.config.evaluation, workspace.config.seed
    stored = [column.name for column in detail.columns]
    wanted = [name for name in columns_needed(settings.segments) if name in stored]
    of_model = workspace.tables.read(detail, [col.USER_ID, *wanted])
    found = {MODEL: segment_table(of_model, settings, seed)}
    merged = {scope: of[MERGED] for (scope, population), of in cells.items() if population == Population.ALL and MERGED in of}
    if merged:
        scopes = {"hits": str(Scope.ALL), **{tier_columns(tier)[0]: tier_scope(tier) for tier in TIERS}}
        rows = {name: merged.get(scopes[name], merged[Scope.ALL].slice(0, 0)) for name in wanted if name in scopes}
        of_merged = with_hits_of(of_model, rows, settings.k[-1], detail.ds)
        found = {MERGED: segment_table(of_merged, settings, seed), **found}
    return found


def _segment_rows(segments: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    return [{SCORER: scorer, **row} for scorer, one in segments.items() for row in one.to_pylist()]


def _segment_images(segments: Mapping[str, pa.Table], k: int) -> dict[str, bytes]:
    return {"hit_rate_by_segment": segment_png(segments, k)} if segments[MODEL].num_rows else {}


def _describe_lists(workspace: Workspace, detail: Manifest) -> ListFacts:
    ks = workspace.config.evaluation.k
    popularity = read_item_popularity(workspace, workspace.need("negative_items", detail.ds))
    quality = list_quality(workspace.tables.batches(detail, [LISTS]), popularity, ks)
    previous = next(iter(partitions_before(workspace, HIT_RATE_DETAIL.name, detail.ds, 1)), None)
    overlap = OVERLAP_SCHEMA.empty_table()
    # If the source has changed the type of ids, the two days have no users or items in common.
    if previous is not None and _id_types(workspace, previous) == _id_types(workspace, detail):
        now, then = (workspace.tables.batches(one, [col.USER_ID, LISTS]) for one in (detail, previous))
        overlap = list_overlap(now, then, ks)
    return ListFacts(quality, overlap, None if previous is None else previous.ds, popularity)


def _id_types(workspace: Workspace, detail: Manifest) -> list[pa.DataType]:
    schema = workspace.tables.read_schema(detail)
    return [schema.field(name).type for name in (col.USER_ID, LISTS)]


def _trend(workspace: Workspace, ds: str, total: pa.Table) -> pa.Table:
    """Returns the hit rates of the last evaluation days. `total` has the rates of the day `ds`: they are not stored yet."""
    previous = partitions_before(workspace, TOTAL_HIT_RATE.name, ds, TREND_DAYS - 1)
    columns = ["k", POPULATION, *TREND_COLUMNS]
    stored = ((manifest.ds, workspace.tables.read(manifest, columns)) for manifest in previous)
    return trend_table([*stored, (ds, total)], workspace.config.evaluation.k[-1])


def read_cells(workspace: Workspace, hit_counts: Manifest) -> HitCells:
    """Returns the cells of a stored hit_counts.

    All rows are decoded once, into a mapped file, so that the system can drop pages when memory is short. The file is deleted
    at once; the system frees its space with the last cell.
    """
    workspace.loaded.scratch.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("cells", workspace.loaded.scratch) as folder:
        path = folder / "rows.arrow"
        write_arrow(path, workspace.tables.read_schema(hit_counts), workspace.tables.batches(hit_counts))
        return split_cells(map_arrow(path))
