"""Feature generation, once per entity and day: items, users, and the day's part of the user history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features import specs
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import StepResult, Workspace, digests


def item_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every item's features as of each day."""
    for ds in days:
        yield _encode(workspace, ds, side="item", source="item_all_feature", spec=specs.ITEM_FEATURES_FG, key=col.ITEM_ID)


def user_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every user's features as of each day."""
    for ds in days:
        yield _encode(workspace, ds, side="user", source="user_all_feature", spec=specs.USER_FEATURES_FG, key=col.USER_ID)


def user_history_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes the day's part of every user's history."""
    kept = [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS]
    for ds in days:
        source = workspace.need("user_history", ds)
        table = workspace.tables.read(source)
        encoded = workspace.generator.generate_sequence(table)
        result = _beside(table.select(kept), encoded)
        yield StepResult(workspace.write_table(specs.USER_HISTORY_FG, ds, result, [source]))


def _encode(workspace: Workspace, ds: str, *, side: str, source: str, spec: TableSpec, key: str) -> StepResult:
    made_from = workspace.need(source, ds)
    generator = workspace.generator

    def encoded() -> Iterator[pa.RecordBatch]:
        for batch in workspace.tables.batches(made_from):
            table = pa.Table.from_batches([batch])
            yield from _beside(table.select([key, col.FEATURE_DATE]), generator.generate(table, side=side)).to_batches()

    batches = list(encoded())
    if not batches:
        empty = workspace.tables.open(made_from).schema.empty_table()
        batches = _beside(empty.select([key, col.FEATURE_DATE]), generator.generate(empty, side=side)).to_batches()
    manifest = workspace.tables.write(spec, ds, batches, schema=batches[0].schema, inputs=digests([made_from]))
    return StepResult(manifest, {"features": len(batches[0].schema) - 2})


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for field, column in zip(right.schema, right.columns, strict=True):
        left = left.append_column(field, column)
    return left
