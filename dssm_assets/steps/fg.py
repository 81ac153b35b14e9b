"""Feature generation, once per entity and day: items, users, and the day's part of the user history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features import specs
from dssm_assets.core.features.generator import SEQUENCE
from dssm_assets.core.features.parity import ParityReport, golden_rows, merged, replay
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests
from dssm_assets.storage.layout import is_shared as is_shared_path
from dssm_assets.storage.manifest import Manifest

GOLDEN_ROWS = 5
"""Rows of a partition that are replayed one by one; a request costs milliseconds, and there is a partition per day."""


def item_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every item's features as of each day."""
    return _encoded(workspace, days, side="item", source="item_all_feature", spec=specs.ITEM_FEATURES_FG, key=col.ITEM_ID)


def user_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every user's features as of each day."""
    return _encoded(workspace, days, side="user", source="user_all_feature", spec=specs.USER_FEATURES_FG, key=col.USER_ID)


def _encoded(
    workspace: Workspace, days: Sequence[str], *, side: str, source: str, spec: TableSpec, key: str
) -> Iterator[StepResult]:
    """Encodes the source of each day; a day whose source is the shared one of the day before shares its features."""
    last: tuple[str, StepResult] | None = None
    for ds in days:
        made_from = workspace.need(source, ds)
        if last is not None and is_shared(made_from) and last[0] == made_from.digest:
            manifest = workspace.tables.partitions.publish_same(last[1].manifest, ds, digests([made_from]))
            yield replace(last[1], manifest=manifest)
            continue
        last = made_from.digest, _encode(workspace, ds, made_from, side=side, spec=spec, key=key)
        yield last[1]


def user_history_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes the day's part of every user's history."""
    kept = [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS]
    for ds in days:
        source = workspace.need("user_history", ds)
        table = workspace.tables.read(source)
        encoded = workspace.generator.encode(table, side=SEQUENCE, is_whole=True)
        golden = golden_rows(table.num_rows, GOLDEN_ROWS)
        parity = replay(workspace.generator, table, encoded, SEQUENCE, golden, is_whole=True)
        result = _beside(table.select(kept), encoded)
        manifest = workspace.write_table(specs.USER_HISTORY_FG, ds, result, [source])
        yield StepResult(manifest, {}, (parity_check(parity),))


def parity_check(parity: ParityReport) -> Check:
    """Returns what a replay found as the check of a partition."""
    facts = {"golden_rows": parity.row_count, "differing_features": sorted(parity.differing)}
    return Check("fg_parity", parity.is_passed, parity.sentence, facts)


def _encode(workspace: Workspace, ds: str, made_from: Manifest, *, side: str, spec: TableSpec, key: str) -> StepResult:
    generator, kept = workspace.generator, [key, col.FEATURE_DATE]
    golden, reports = golden_rows(made_from.rows, GOLDEN_ROWS), list[ParityReport]()

    def encoded(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        start = 0
        for part in parts:
            table = pa.Table.from_batches([part])
            features = generator.encode(table, side=side)
            reports.append(replay(generator, table, features, side, golden, start=start))
            start += table.num_rows
            yield from _beside(table.select(kept), features).to_batches()

    source = workspace.tables.open(made_from).schema
    empty = source.empty_table()
    schema = _beside(empty.select(kept), generator.encode(empty, side=side)).schema
    texts = [field.name for field in source if pa.types.is_string(field.type) and field.name not in kept]
    read = workspace.tables.batches(made_from, as_dictionaries=texts)
    manifest = workspace.tables.write(
        spec, ds, encoded(read), schema=schema, inputs=digests([made_from]), is_shared=is_shared(made_from)
    )
    return StepResult(manifest, {"features": len(schema) - 2}, (parity_check(merged(reports)),))


def is_shared(manifest: Manifest) -> bool:
    """Tells whether the files of a partition may be those of other days too."""
    return all(is_shared_path(file.path) for file in manifest.files)


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for field, column in zip(right.schema, right.columns, strict=True):
        left = left.append_column(field, column)
    return left
