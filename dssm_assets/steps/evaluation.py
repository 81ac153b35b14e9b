"""Evaluation: the day's truth, hits of the model and of every baseline, rates with intervals, the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.evaluation.hit_counts import POPULATION, SCOPE, SCORER
from dssm_assets.core.evaluation.truth import Population, Scope
from dssm_assets.steps.interactions import read_popularity
from dssm_assets.steps.scoring import counted, listed
from dssm_assets.steps.workspace import Check, StepResult, Workspace, partitions_before, window_days
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.rates import Cells


TOTAL, DETAIL = "total_hit_rate", "hit_rate_detail"


def segments_of(workspace: Workspace, detailed: Manifest) -> Any:
    """Returns the hit rate of each segment of a stored hit_rate_detail."""
    from dssm_assets.core.evaluation.segments import columns_needed, segment_table

    settings = workspace.config.evaluation
    stored = [column.name for column in detailed.columns]
    wanted = [name for name in columns_needed(settings.segments) if name in stored]
    return segment_table(workspace.tables.read(detailed, wanted), settings, workspace.config.seed)


def segment_images(segments: pa.Table, k: int) -> dict[str, bytes]:
    """Returns the chart of the segments, by its name in the metadata; none where nobody is in any."""
    from dssm_assets.core.evaluation.charts import segment_png

    return {"hit_rate_by_segment": segment_png(segments, k)} if segments.num_rows else {}


def lists_of(workspace: Workspace, detailed: Manifest) -> Any:
    """Returns what the lists of a stored hit_rate_detail are like, and how they differ from the evaluation day before."""
    from dssm_assets.core.evaluation.list_quality import LISTS, OVERLAP_SCHEMA, list_overlap, list_quality
    from dssm_assets.core.evaluation.report import list_facts

    ks = workspace.config.evaluation.k
    popularity, _ = read_popularity(workspace, detailed.ds)
    quality = list_quality(workspace.tables.batches(detailed, [LISTS]), popularity, ks)
    before = next(iter(partitions_before(workspace, DETAIL, detailed.ds, 1)), None)
    overlap = OVERLAP_SCHEMA.empty_table()
    # Days whose ids are of another type (the source changed) have no users or items in common.
    if before is not None and _types(workspace, before) == _types(workspace, detailed):
        now, then = (workspace.tables.batches(manifest, [col.USER_ID, LISTS]) for manifest in (detailed, before))
        overlap = list_overlap(now, then, ks)
    return list_facts(quality, overlap, before.ds if before is not None else None, popularity)


def _types(workspace: Workspace, manifest: Manifest) -> list[pa.DataType]:
    from dssm_assets.core.evaluation.list_quality import LISTS

    schema = workspace.tables.open(manifest).schema
    return [schema.field(name).type for name in (col.USER_ID, LISTS)]


def list_figures(lists: Any, k: int) -> dict[str, float]:
    """Returns the figures at the largest k that the UI plots over the partitions."""
    figures: dict[str, float] = {}
    for row in lists.quality.to_pylist():
        if row["k"] == k:
            figures |= {f"{name}@{k}": row[name] for name in ("coverage", "popularity_bias", "novelty")}
    for row in lists.overlap.to_pylist():
        if row["k"] == k:
            figures |= {f"kept_since_day_before@{k}": row["kept"], f"jaccard_with_day_before@{k}": row["jaccard"]}
    return figures


def trend_of(workspace: Workspace, ds: str, total: pa.Table) -> pa.Table:
    """Returns the hit rates of the last evaluation days, the given one (not stored yet) the last of them."""
    from dssm_assets.core.evaluation.charts import TREND_COLUMNS, trend_table

    settings = workspace.config.evaluation
    before = partitions_before(workspace, TOTAL, ds, settings.trend_partitions - 1)

    def totals() -> Iterator[tuple[str, pa.Table]]:
        for manifest in before:
            yield manifest.ds, workspace.tables.read(manifest, ["k", "population", *TREND_COLUMNS])
        yield ds, total

    return trend_table(totals(), settings.k[-1])


def trend_images(trend: pa.Table, k: int) -> dict[str, bytes]:
    """Returns the chart of the trend, by its name in the metadata; none where no day has a rate."""
    from dssm_assets.core.evaluation.charts import trend_png

    return {"hit_rate_trend": trend_png(trend, k)} if trend.num_rows else {}


def trend_rows(trend: pa.Table) -> list[dict[str, Any]]:
    """Returns the trend over all items as plain rows: the day, every scorer's rate, the model's interval."""
    days: dict[str, dict[str, Any]] = {}
    for row in trend.to_pylist():
        if row["scope"] == "all":
            day = days.setdefault(row["day"], {"day": row["day"]})
            day[row["scorer"]] = row["hit_rate"]
            if row["scorer"] == "model":
                day |= {"ci_low": row["ci_low"], "ci_high": row["ci_high"]}
    return list(days.values())


NAME = "hit_rate_gate"


def hit_rate_gate(workspace: Workspace, ds: str, hit_counts: pa.Table | Cells, total: pa.Table) -> Check:
    """Returns whether the day's model may be shipped.

    With `gate.is_blocking` false a failure warns and holds nothing back.
    """
    from dssm_assets.core.evaluation.gate import hit_rate_gate as decide

    config = workspace.config
    before = partitions_before(workspace, "total_hit_rate", ds, config.gate.last_partitions)
    report = decide(
        hit_counts,
        total,
        {manifest.ds: workspace.tables.read(manifest) for manifest in before},
        config.gate,
        k=config.evaluation.k[-1],
        samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
    )
    return Check(NAME, report.passed, report.sentence, report.facts, is_blocking=config.gate.is_blocking)


POPULARITY_FACTOR = 1.2
_MODEL, _POPULARITY = "model", "popularity"


def ground_truth(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Lists what each user took on the evaluation day."""
    from dssm_assets.core.evaluation import evaluation_tables
    from dssm_assets.core.evaluation.truth import ground_truth as find_truth

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
        yield StepResult(workspace.write_table(evaluation_tables.GROUND_TRUTH, ds, table, [day, window]), facts)


def hit_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the hits of the model and of every baseline."""
    for ds in days:
        yield counted(workspace, ds)


def hit_rate_detail(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Writes down each user's list, hits and misses."""
    for ds in days:
        yield _hit_rate_detail(workspace, ds)


def _hit_rate_detail(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.report import segment_report
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
    from dssm_assets.core.evaluation import evaluation_tables
    from dssm_assets.core.evaluation.rates import gains_over_best
    from dssm_assets.core.evaluation.rates import total_hit_rate as add_up
    from dssm_assets.core.evaluation.report import ReportFacts, render_report

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
    manifest = workspace.write_table(evaluation_tables.TOTAL_HIT_RATE, ds, total, [counted, detailed])
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


_KEYS = (SCORER, SCOPE, POPULATION)


class StoredCells:
    """The cells of a stored hit_counts. Each file is sorted by cell, so a cell is one range of rows of each file."""

    def __init__(self, workspace: Workspace, manifest: Manifest) -> None:
        """Looks where the cells begin and end."""
        self._tables, self._manifest = workspace.tables, manifest
        self._columns = [column.name for column in manifest.columns if column.name not in _KEYS]
        self._ranges: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for key, first, end in self._runs():
            self._ranges.setdefault(key, []).append((first, end))

    @property
    def num_rows(self) -> int:
        """Returns the rows of all cells."""
        return self._manifest.rows

    def cell(self, scope: Scope, population: Population) -> dict[str, pa.Table]:
        """Returns scorer -> its rows of a cell, for scorers that have any."""
        found = {}
        for scorer, *rest in sorted(self._ranges):
            if rest == [scope, population]:
                ranges = self._ranges[scorer, scope, population]
                parts = [batch for first, end in ranges for batch in self._rows(first, end)]
                found[scorer] = pa.Table.from_batches(parts).combine_chunks()
        return found

    def _rows(self, first: int, end: int) -> Iterator[pa.RecordBatch]:
        return self._tables.rows(self._manifest, self._columns, first, end)

    def _runs(self) -> Iterator[tuple[tuple[str, ...], int, int]]:
        """Yields (scorer, scope, population), first and end of rows that have these keys; one range may come in pieces."""
        begin = 0
        for batch in self._tables.batches(self._manifest, _KEYS, as_dictionaries=_KEYS):
            columns = [batch.column(name) for name in _KEYS]
            codes = np.stack([column.indices.to_numpy(zero_copy_only=False) for column in columns])
            starts = np.flatnonzero((np.diff(codes, axis=1, prepend=-1) != 0).any(axis=0)).tolist()
            for first, end in zip(starts, [*starts[1:], batch.num_rows], strict=False):
                yield tuple(column[first].as_py() for column in columns), begin + first, begin + end
            begin += batch.num_rows
