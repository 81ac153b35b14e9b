"""What total_hit_rate tells beside its rates: segments, what the lists are like, the trend; as words, pictures, figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.steps.earlier import partitions_before
from dssm_assets.steps.segments import read_popularity
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest

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
    from dssm_assets.core.evaluation.segment_chart import segment_png

    return {"hit_rate_by_segment": segment_png(segments, k)} if segments.num_rows else {}


def lists_of(workspace: Workspace, detailed: Manifest) -> Any:
    """Returns what the lists of a stored hit_rate_detail are like, and how they differ from the evaluation day before."""
    from dssm_assets.core.evaluation.list_quality import LISTS, OVERLAP_SCHEMA, list_overlap, list_quality
    from dssm_assets.core.evaluation.report_sections import list_facts

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
    from dssm_assets.core.evaluation.trend import TREND_COLUMNS, trend_table

    settings = workspace.config.evaluation
    before = partitions_before(workspace, TOTAL, ds, settings.trend_partitions - 1)

    def totals() -> Iterator[tuple[str, pa.Table]]:
        for manifest in before:
            yield manifest.ds, workspace.tables.read(manifest, ["k", "population", *TREND_COLUMNS])
        yield ds, total

    return trend_table(totals(), settings.k[-1])


def trend_images(trend: pa.Table, k: int) -> dict[str, bytes]:
    """Returns the chart of the trend, by its name in the metadata; none where no day has a rate."""
    from dssm_assets.core.evaluation.trend_chart import trend_png

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
