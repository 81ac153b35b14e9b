"""Statistics: the day's mergeable value counts, and over the window the boundaries and counts that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from dssm_assets.core.features import specs, value_counts
from dssm_assets.core.features.binning import feature_binning as bin_features
from dssm_assets.steps.workspace import StepResult, Workspace, window_days


def numeric_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of numeric features among each day's positives."""
    for ds in days:
        source = workspace.need("positive_sample", ds)
        counted = value_counts.numeric_value_counts(workspace.tables.read(source), workspace.fg_spec)
        yield StepResult(workspace.write_table(specs.NUMERIC_VALUE_COUNTS, ds, counted, [source]))


def category_value_counts(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Counts the values of categorical features among each day's positives."""
    for ds in days:
        source = workspace.need("positive_sample", ds)
        counted = value_counts.category_value_counts(workspace.tables.read(source), workspace.fg_spec)
        yield StepResult(workspace.write_table(specs.CATEGORY_VALUE_COUNTS, ds, counted, [source]))


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
    return (workspace.tables.read(manifest) for manifest in window)
