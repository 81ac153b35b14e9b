"""A day's value counts where rows stay on an engine's workers: counted by row group there, summed here.

Belongs here: what a worker counts, and the sum. Does not belong here: counting and summing (`core/features/value_counts`),
the same in one process, which keeps coded tables from day to day (`statistics.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from dssm_assets.core.features.coded_values import ONCE, Counts, Uses
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.features.value_counts import count_values, merge_value_counts
from dssm_assets.core.samples.sample_fg import used_rows
from dssm_assets.steps.feature_tables import ROWS
from dssm_assets.storage.engine import Engine
from dssm_assets.storage.manifest import Manifest

UsedRows: TypeAlias = tuple[Counts, Counts, int]
"""The rows of a feature table that are used, ascending, how often each is, and how many samples use none."""


@dataclass(frozen=True)
class SideTable:
    """The feature table that a day's positives point into.

    Attributes:
        manifest: None on the first day, when there is none.
        features: those of one kind.
        nobody: returns such a table without rows.
    """

    manifest: Manifest | None
    features: Sequence[Feature]
    nobody: Callable[[], pa.Table]


@dataclass(frozen=True)
class _OfSamples:
    """The kernel over positives: the counts of their context features, and which rows of each side they use."""

    kind: Kind
    context: Sequence[Feature]
    row_counts: Mapping[str, int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, dict[str, UsedRows]]:
        uses = {}
        for side, row_count in self.row_counts.items():
            uses[side] = used_rows(table.column(ROWS[side]), row_count)
        return count_values(self.kind, [(table, self.context, ONCE)]), uses


@dataclass(frozen=True)
class _OfSide:
    """The kernel over a feature table: the counts of its features in the rows that samples use."""

    kind: Kind
    features: Sequence[Feature]
    used: Counts
    counts: Counts

    def __call__(self, table: pa.Table, start: int) -> pa.Table:
        first, end = np.searchsorted(self.used, [start, start + table.num_rows])
        counts = np.zeros(table.num_rows, np.int64)
        counts[self.used[first:end] - start] = self.counts[first:end]
        return count_values(self.kind, [(table, self.features, Uses(counts))])


def counted_on_workers(
    engine: Engine, kind: Kind, positive: Manifest, context: Sequence[Feature], sides: Mapping[str, SideTable]
) -> pa.Table:
    """Returns the counts of all features of a kind among a day's positives.

    What comes here is one row per feature and value of each row group, and one per row of a feature table that is used.

    Args:
        engine: what maps the rows.
        kind: numbers or categories.
        positive: the day.
        context: the context features of that kind, which stand in the positives.
        sides: the feature tables of users and items.

    Raises:
        SchemaError: a feature column is missing or has another type, or a row lies outside of its table.
    """
    row_counts = {side: 0 if at.manifest is None else at.manifest.rows for side, at in sides.items()}
    columns = [*(ROWS[side] for side in sides), *(feature.name for feature in context)]
    found = engine.reports(positive, _OfSamples(kind, context, row_counts), columns)
    parts = [counts for counts, _ in found]
    for side, at in sides.items():
        used, counts, without = _summed([uses[side] for _, uses in found], row_counts[side])
        parts.append(count_values(kind, [(at.nobody(), at.features, Uses(np.zeros(0, np.int64), without))]))
        if at.manifest is not None and at.features:
            kernel = _OfSide(kind, at.features, used, counts)
            parts += engine.reports(at.manifest, kernel, [feature.name for feature in at.features])
    return merge_value_counts(parts)


def _summed(uses: Sequence[UsedRows], row_count: int) -> UsedRows:
    total = np.zeros(row_count, np.int64)
    for used, counts, _ in uses:
        total[used] += counts
    rows = np.flatnonzero(total)
    return rows, total[rows], sum(without for _, _, without in uses)
