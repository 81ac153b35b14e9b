"""Statistics: the day's mergeable value counts, and over the window the boundaries and counts that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import FEATURE
from dssm_assets.core.features import specs, value_counts
from dssm_assets.core.features.binning import feature_binning as bin_features
from dssm_assets.core.features.coded_values import ONCE, Uses
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.features.value_counts import CodedTable
from dssm_assets.core.samples.sample_fg import use_counts
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.feature_tables import ROWS, FeatureTables
from dssm_assets.steps.spread_counts import SideTable, counted_on_workers
from dssm_assets.steps.workspace import StepResult, Workspace, window_days
from dssm_assets.storage.manifest import Manifest


def numeric_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of numeric features among each day's positives."""
    return _counted(workspace, days, specs.NUMERIC_VALUE_COUNTS, Kind.NUMERIC)


def category_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of categorical features among each day's positives."""
    return _counted(workspace, days, specs.CATEGORY_VALUE_COUNTS, Kind.CATEGORICAL)


def _counted(workspace: Workspace, days: Sequence[str], spec: TableSpec, kind: Kind) -> Iterator[StepResult]:
    held = FeatureTables(workspace)
    of_side = {side: [f for f in workspace.fg_spec.of_side(side) if f.kind is kind] for side in ("user", "item", "context")}
    for ds in days:
        positive = workspace.need("positive_sample", ds)
        found = {side: held.of_positives(side, positive) for side in ROWS}
        sides = {side: SideTable(at, of_side[side], partial(_nobody, workspace, side, at, ds)) for side, at in found.items()}
        if workspace.engine.is_spread:
            table = counted_on_workers(workspace.engine, kind, positive, of_side["context"], sides)
        else:
            table = _counted_here(workspace, held, kind, positive, of_side["context"], sides)
        made_from = [positive, *(manifest for manifest in found.values() if manifest is not None)]
        yield StepResult(workspace.write_table(spec, ds, table, made_from))


def _nobody(workspace: Workspace, side: str, manifest: Manifest | None, ds: str) -> pa.Table:
    """Returns a side's feature table without rows."""
    return workspace.tables.open(manifest or workspace.need(f"{side}_features_fg", ds)).schema.empty_table()


def _counted_here(
    workspace: Workspace,
    held: FeatureTables,
    kind: Kind,
    positive: Manifest,
    context: Sequence[Feature],
    sides: Mapping[str, SideTable],
) -> pa.Table:
    """Returns the counts of a day, a feature table that comes again being held in a form that is counted at little cost."""
    table = workspace.tables.read(positive, [*ROWS.values(), *(feature.name for feature in context)])
    groups: list[tuple[pa.Table | CodedTable, Sequence[Feature], Uses]] = [(table, context, ONCE)]
    for side, at in sides.items():
        if at.manifest is None:
            groups.append((at.nobody(), at.features, Uses(np.zeros(0, np.int64), table.num_rows)))
            continue
        uses = Uses(*use_counts(table.column(ROWS[side]), at.manifest.rows))
        groups.append((held.values(side, at.manifest, at.features), at.features, uses))
    return value_counts.count_values(kind, groups)


def feature_binning(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Cuts numeric features into equal-frequency bins over the window before each day."""
    for ds in days:
        window = workspace.need_all("numeric_value_counts", window_days(ds, workspace.config.window.days))
        merged = value_counts.merge_value_counts(_days(workspace, window))
        statistics = workspace.config.statistics
        own_bins = {name: own.num_bins for name, own in statistics.features.items() if own.num_bins is not None}
        table = bin_features(merged, statistics.num_bins, own_bins)
        yield StepResult(workspace.write_table(specs.FEATURE_BINNING, ds, table, [window]), {"window_days": len(window)})


def feature_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of categorical features over the window before each day."""
    for ds in days:
        window = workspace.need_all("category_value_counts", window_days(ds, workspace.config.window.days))
        table = value_counts.by_frequency(value_counts.merge_value_counts(_days(workspace, window)))
        yield StepResult(workspace.write_table(specs.FEATURE_COUNTS, ds, table, [window]), {"window_days": len(window)})


def _days(workspace: Workspace, window: Sequence) -> Iterable[pa.Table]:  # type: ignore[type-arg]
    return (workspace.tables.read(manifest, as_dictionaries=[FEATURE]) for manifest in window)
