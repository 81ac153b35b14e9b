"""Statistics of features: value counts of each day, and bins and counts over the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import FEATURE
from dssm_assets.core.features import fg_tables
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.samples.sample_fg import count_uses
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.value_counts import Counts, count_missing, count_values, merge_value_counts, sort_by_frequency
from dssm_assets.steps.previous_day import ROW_COLUMNS, PointedTable, find_features_of_positives
from dssm_assets.steps.workspace import StepResult, Workspace, each_day, window_days
from dssm_assets.storage.manifest import Manifest

UsedRows: TypeAlias = tuple[Counts, Counts, int]
"""The rows of a feature table that samples use (ascending), the number of uses of each, and the number of samples without a row."""


def _count_positives(
    kind: Kind, context: Sequence[Feature], tables: Mapping[str, PointedTable | None], table: pa.Table, start: int
) -> tuple[pa.Table, dict[str, UsedRows]]:
    """Returns the counts of a block's context features, and the block's rows of each side."""
    uses = {}
    for side, pointed in tables.items():
        rows = table.column(ROW_COLUMNS[side])
        uses[side] = count_uses(rows if pointed is None else pointed.locate(rows))
    return count_values(kind, table, context), uses


def _count_side(kind: Kind, features: Sequence[Feature], used: Counts, counts: Counts, table: pa.Table, start: int) -> pa.Table:
    here = slice(*np.searchsorted(used, [start, start + table.num_rows]))
    return count_values(kind, table.take(pa.array(used[here] - start)), features, counts[here])


@each_day
def numeric_value_counts(workspace: Workspace, ds: str) -> StepResult:
    return _count_day(workspace, ds, fg_tables.NUMERIC_VALUE_COUNTS, Kind.NUMERIC)


@each_day
def category_value_counts(workspace: Workspace, ds: str) -> StepResult:
    return _count_day(workspace, ds, fg_tables.CATEGORY_VALUE_COUNTS, Kind.CATEGORICAL)


def _count_day(workspace: Workspace, ds: str, spec: TableSpec, kind: Kind) -> StepResult:
    """Counts on the engine, block by block. Writes a row per feature and value, and counts the uses of each feature row."""
    features = {
        side: [f for f in workspace.fg_spec.features_of_side(side) if f.kind is kind] for side in ("context", *ROW_COLUMNS)
    }
    positive = workspace.need("positive_sample", ds)
    tables = {side: find_features_of_positives(workspace, side, positive) for side in ROW_COLUMNS}
    columns = [*ROW_COLUMNS.values(), *(feature.name for feature in features["context"])]
    kernel = partial(_count_positives, kind, features["context"], tables)
    found = workspace.engine.reports(positive, kernel, columns)
    parts = [count_missing(kind, [], 0), *(counts for counts, _ in found)]
    for side, table in tables.items():
        uses = np.zeros(0 if table is None else table.manifest.rows, np.int64)
        for _, used_by_side in found:
            rows, counts, without = used_by_side[side]
            uses[rows] += counts
            parts.append(count_missing(kind, features[side], without))
        if table is not None and features[side]:
            used = np.flatnonzero(uses)
            count = partial(_count_side, kind, features[side], used, uses[used])
            parts += workspace.engine.reports(table.manifest, count, [feature.name for feature in features[side]])
    built_from = [positive, *(table.manifest for table in tables.values() if table is not None)]
    return StepResult(workspace.write_table(spec, ds, merge_value_counts(parts), built_from))


@each_day
def feature_binning(workspace: Workspace, ds: str) -> StepResult:
    merged, window = _merge_window(workspace, "numeric_value_counts", ds)
    statistics = workspace.config.statistics
    own_bins = {name: own.num_bins for name, own in statistics.features.items() if own.num_bins is not None}
    table = bin_features(merged, statistics.num_bins, own_bins)
    return StepResult(workspace.write_table(fg_tables.FEATURE_BINNING, ds, table, [window]), {"window_days": len(window)})


@each_day
def feature_counts(workspace: Workspace, ds: str) -> StepResult:
    merged, window = _merge_window(workspace, "category_value_counts", ds)
    table = sort_by_frequency(merged)
    return StepResult(workspace.write_table(fg_tables.FEATURE_COUNTS, ds, table, [window]), {"window_days": len(window)})


def _merge_window(workspace: Workspace, asset: str, ds: str) -> tuple[pa.Table, list[Manifest]]:
    window = workspace.need_all(asset, window_days(ds, workspace.config.window.days))
    days = (workspace.tables.read(manifest, as_dictionaries=[FEATURE]) for manifest in window)
    return merge_value_counts(days), window
