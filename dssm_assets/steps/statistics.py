"""Statistics of features: value counts of each day, and bins and counts over the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import FEATURE
from dssm_assets.core.features import fg_tables
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.samples.sample_fg import count_used_rows, count_uses
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.statistics import value_counts
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.value_counts import ONCE, CodedTable, Counts, Uses, count_values, merge_value_counts
from dssm_assets.steps.day_groups import cut_days
from dssm_assets.steps.previous_day import ROW_COLUMNS, FeatureTables
from dssm_assets.steps.workspace import StepResult, Workspace, each_day, window_days
from dssm_assets.storage.engines.engine import Engine
from dssm_assets.storage.manifest import Manifest

UsedRows: TypeAlias = tuple[Counts, Counts, int]
"""The rows of a feature table that samples use, ascending; the number of uses of each; the number of samples without a row."""


@dataclass(frozen=True)
class SideTable:
    """The feature table of users or items that the positives of a day refer to by row number.

    Attributes:
        manifest: None on the first day, when there is no such table.
        features: the features to count, of one kind.
        read_empty: returns such a table without rows.
    """

    manifest: Manifest | None
    features: Sequence[Feature]
    read_empty: Callable[[], pa.Table]


@dataclass(frozen=True)
class _CountPositives:
    """Function on a block of positives: counts of their context features, and the rows of each side that they use."""

    kind: Kind
    context: Sequence[Feature]
    row_counts: Mapping[str, int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, dict[str, UsedRows]]:
        uses = {}
        for side, row_count in self.row_counts.items():
            uses[side] = count_used_rows(table.column(ROW_COLUMNS[side]), row_count)
        return count_values(self.kind, [(table, self.context, ONCE)]), uses


@dataclass(frozen=True)
class _CountSide:
    """Function on a block of a feature table: counts of its features, each row as often as samples use it."""

    kind: Kind
    features: Sequence[Feature]
    used: Counts
    counts: Counts

    def __call__(self, table: pa.Table, start: int) -> pa.Table:
        first, end = np.searchsorted(self.used, [start, start + table.num_rows])
        counts = np.zeros(table.num_rows, np.int64)
        counts[self.used[first:end] - start] = self.counts[first:end]
        return count_values(self.kind, [(table, self.features, Uses(counts))])


def _count_on_workers(
    engine: Engine, kind: Kind, positive: Manifest, context: Sequence[Feature], sides: Mapping[str, SideTable]
) -> pa.Table:
    """Returns the counts of all features of a kind among the positives of a day, computed on the workers of the engine.

    The workers send one row per feature and value of each row group, and one number per used row of a feature table.

    Args:
        context: the context features of that kind, which are columns of the positives.
        sides: the feature tables of users and items.

    Raises:
        SchemaError: a feature column is missing or has another type, or a row number is outside its table.
    """
    row_counts = {side: 0 if at.manifest is None else at.manifest.rows for side, at in sides.items()}
    columns = [*(ROW_COLUMNS[side] for side in sides), *(feature.name for feature in context)]
    found = engine.reports(positive, _CountPositives(kind, context, row_counts), columns)
    parts = [counts for counts, _ in found]
    for side, at in sides.items():
        used, counts, without = _sum_uses([uses[side] for _, uses in found], row_counts[side])
        parts.append(count_values(kind, [(at.read_empty(), at.features, Uses(np.zeros(0, np.int64), without))]))
        if at.manifest is not None and at.features:
            kernel = _CountSide(kind, at.features, used, counts)
            parts += engine.reports(at.manifest, kernel, [feature.name for feature in at.features])
    return merge_value_counts(parts)


def _sum_uses(uses: Sequence[UsedRows], row_count: int) -> UsedRows:
    total = np.zeros(row_count, np.int64)
    for used, counts, _ in uses:
        total[used] += counts
    rows = np.flatnonzero(total)
    return rows, total[rows], sum(without for _, _, without in uses)


def numeric_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of numeric features among the positives of each day."""
    return _count_days(workspace, days, fg_tables.NUMERIC_VALUE_COUNTS, Kind.NUMERIC)


def category_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of categorical features among the positives of each day."""
    return _count_days(workspace, days, fg_tables.CATEGORY_VALUE_COUNTS, Kind.CATEGORICAL)


def _count_days(workspace: Workspace, days: Sequence[str], spec: TableSpec, kind: Kind) -> Iterator[StepResult]:
    feature_tables = FeatureTables(workspace)
    features = {
        side: [f for f in workspace.fg_spec.features_of_side(side) if f.kind is kind] for side in ("user", "item", "context")
    }
    for group in _group_days(workspace, days, feature_tables):
        if len(group) > 1:
            tables = _count_group(workspace, kind, group, features)
        else:
            tables = [_count_alone(workspace, feature_tables, kind, group[0], features)]
        for day, table in zip(group, tables, strict=True):
            yield StepResult(workspace.write_table(spec, day[0].ds, table, _inputs(day)))


Day: TypeAlias = tuple[Manifest, dict[str, Manifest | None]]
"""The positives of a day, and the feature table of each side that they point into."""


def _group_days(workspace: Workspace, days: Sequence[str], feature_tables: FeatureTables) -> Iterator[list[Day]]:
    """Yields groups of days; those of several days have feature tables with the same columns, and few rows together."""

    def find_day(ds: str) -> Day:
        positive = workspace.need("positive_sample", ds)
        return positive, {side: feature_tables.find_for_positives(side, positive) for side in ROW_COLUMNS}

    def fit_together(first: Day, day: Day) -> bool:
        pairs = zip(_inputs(first), _inputs(day), strict=False)
        has_all = all(None not in one[1].values() for one in (first, day))
        return has_all and not workspace.engine.is_distributed and all(a.columns == b.columns for a, b in pairs)

    def added_rows(group: Sequence[Day], day: Day) -> int:
        known = {manifest.digest for one in group for manifest in _inputs(one)}
        return sum(manifest.rows for manifest in _inputs(day) if manifest.digest not in known)

    return cut_days(map(find_day, days), fit_together, added_rows)


def _inputs(day: Day) -> list[Manifest]:
    positive, found = day
    return [positive, *(manifest for manifest in found.values() if manifest is not None)]


def _count_group(
    workspace: Workspace, kind: Kind, group: Sequence[Day], features: Mapping[str, Sequence[Feature]]
) -> list[pa.Table]:
    """Returns the counts of several short days. A feature table of several of them is read once."""
    wanted = [*ROW_COLUMNS.values(), *(feature.name for feature in features["context"])]
    read: dict[tuple[str, str], pa.Table] = {}
    days = []
    for positive, found in group:
        table = workspace.tables.read(positive, wanted)
        inputs: list[tuple[pa.Table, Sequence[Feature], Uses]] = [(table, features["context"], ONCE)]
        for side, manifest in found.items():
            assert manifest is not None
            if (key := (side, manifest.digest)) not in read:
                read[key] = workspace.tables.read(manifest, [feature.name for feature in features[side]])
            uses = Uses(*count_uses(table.column(ROW_COLUMNS[side]), manifest.rows))
            inputs.append((read[key], features[side], uses))
        days.append(inputs)
    return value_counts.count_days(kind, days)


def _count_alone(
    workspace: Workspace,
    feature_tables: FeatureTables,
    kind: Kind,
    day: Day,
    features: Mapping[str, Sequence[Feature]],
) -> pa.Table:
    """Returns the counts of a day."""
    positive, found = day
    sides = {
        side: SideTable(at, features[side], partial(_read_empty, workspace, side, at, positive.ds))
        for side, at in found.items()
    }
    if workspace.engine.is_distributed:
        return _count_on_workers(workspace.engine, kind, positive, features["context"], sides)
    return _count_here(workspace, feature_tables, kind, positive, features["context"], sides)


def _read_empty(workspace: Workspace, side: str, manifest: Manifest | None, ds: str) -> pa.Table:
    """Returns the feature table of a side without rows."""
    return workspace.tables.open(manifest or workspace.need(f"{side}_features_fg", ds)).schema.empty_table()


def _count_here(
    workspace: Workspace,
    feature_tables: FeatureTables,
    kind: Kind,
    positive: Manifest,
    context: Sequence[Feature],
    sides: Mapping[str, SideTable],
) -> pa.Table:
    """Returns the counts of a day, computed in this process; `FeatureTables` keeps tables that the next days use again."""
    table = workspace.tables.read(positive, [*ROW_COLUMNS.values(), *(feature.name for feature in context)])
    groups: list[tuple[pa.Table | CodedTable, Sequence[Feature], Uses]] = [(table, context, ONCE)]
    for side, at in sides.items():
        if at.manifest is None:
            groups.append((at.read_empty(), at.features, Uses(np.zeros(0, np.int64), table.num_rows)))
            continue
        uses = Uses(*count_uses(table.column(ROW_COLUMNS[side]), at.manifest.rows))
        groups.append((feature_tables.read_values(side, at.manifest, at.features), at.features, uses))
    return value_counts.count_values(kind, groups)


@each_day
def feature_binning(workspace: Workspace, ds: str) -> StepResult:
    """Cuts numeric features into equal-frequency bins over the window before a day."""
    merged, window = _merge_window(workspace, "numeric_value_counts", ds)
    statistics = workspace.config.statistics
    own_bins = {name: own.num_bins for name, own in statistics.features.items() if own.num_bins is not None}
    table = bin_features(merged, statistics.num_bins, own_bins)
    return StepResult(workspace.write_table(fg_tables.FEATURE_BINNING, ds, table, [window]), {"window_days": len(window)})


@each_day
def feature_counts(workspace: Workspace, ds: str) -> StepResult:
    """Counts the values of categorical features over the window before a day."""
    merged, window = _merge_window(workspace, "category_value_counts", ds)
    table = value_counts.sort_by_frequency(merged)
    return StepResult(workspace.write_table(fg_tables.FEATURE_COUNTS, ds, table, [window]), {"window_days": len(window)})


def _merge_window(workspace: Workspace, asset: str, ds: str) -> tuple[pa.Table, list[Manifest]]:
    """Returns the counts of the window before a day, and their days."""
    window = workspace.need_all(asset, window_days(ds, workspace.config.window.days))
    days = (workspace.tables.read(manifest, as_dictionaries=[FEATURE]) for manifest in window)
    return merge_value_counts(days), window
