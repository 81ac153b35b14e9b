"""Feature generation, once per entity and day: items, users, and the day's part of the user history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dssm_assets.core.features import specs
from dssm_assets.core.features.generator import SEQUENCE, FeatureGenerator
from dssm_assets.core.features.parity import ParityReport, golden_rows, merged, replay
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests
from dssm_assets.storage.engine import Target
from dssm_assets.storage.layout import is_shared as is_shared_path
from dssm_assets.storage.manifest import Manifest

GOLDEN_ROWS = 5
"""Rows of a partition that are replayed one by one; a request costs milliseconds, and there is a partition per day."""


def item_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every item's features as of each day."""
    return _encoded(workspace, days, side="item", source="item_all_feature", spec=specs.ITEM_FEATURES_FG)


def user_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every user's features as of each day."""
    return _encoded(workspace, days, side="user", source="user_all_feature", spec=specs.USER_FEATURES_FG)


def _encoded(workspace: Workspace, days: Sequence[str], *, side: str, source: str, spec: TableSpec) -> Iterator[StepResult]:
    """Encodes the source of each day; a day whose source is the shared one of the day before shares its features."""
    last: tuple[str, StepResult] | None = None
    for ds in days:
        made_from = workspace.need(source, ds)
        if last is not None and is_shared(made_from) and last[0] == made_from.digest:
            manifest = workspace.tables.partitions.publish_same(last[1].manifest, ds, digests([made_from]))
            yield replace(last[1], manifest=manifest)
            continue
        last = made_from.digest, _encode(workspace, ds, made_from, side=side, spec=spec)
        yield last[1]


def user_history_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes the day's part of every user's history."""
    for ds in days:
        yield _encode(workspace, ds, workspace.need("user_history", ds), side=SEQUENCE, spec=specs.USER_HISTORY_FG)


def parity_check(parity: ParityReport) -> Check:
    """Returns what a replay found as the check of a partition."""
    facts = {"golden_rows": parity.row_count, "differing_features": sorted(parity.differing)}
    return Check("fg_parity", parity.is_passed, parity.sentence, facts)


@dataclass(frozen=True)
class _Encoding:
    """The kernel of feature generation: keys and features of some rows, and what the golden ones among them gave."""

    generator: FeatureGenerator
    side: str
    kept: tuple[str, ...]
    golden: Sequence[int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, ParityReport]:
        is_whole = self.side == SEQUENCE
        features = self.generator.encode(table, side=self.side, is_whole=is_whole)
        report = replay(self.generator, table, features, self.side, list(self.golden), start=start, is_whole=is_whole)
        return _beside(table.select(self.kept), features), report


def _encode(workspace: Workspace, ds: str, made_from: Manifest, *, side: str, spec: TableSpec) -> StepResult:
    kept = tuple(column.name for column in spec.columns)
    encoding = _Encoding(workspace.generator, side, kept, golden_rows(made_from.rows, GOLDEN_ROWS))
    texts = [column.name for column in made_from.columns if column.type == "string" and column.name not in kept]
    target = Target(spec, ds, digests([made_from]), is_shared=is_shared(made_from))
    manifest, reports = workspace.engine.write_mapped(target, made_from, encoding, as_dictionaries=texts)
    return StepResult(manifest, {"features": len(manifest.columns) - len(kept)}, (parity_check(merged(reports)),))


def is_shared(manifest: Manifest) -> bool:
    """Tells whether the files of a partition may be those of other days too."""
    return all(is_shared_path(file.path) for file in manifest.files)


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for field, column in zip(right.schema, right.columns, strict=True):
        left = left.append_column(field, column)
    return left
