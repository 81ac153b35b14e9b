"""Samples of a day: keys and labels, joined with the features of the day before, and the positives among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features.distinct_rows import encode_distinct
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.parity import ParityReport, golden_rows, merged, replay
from dssm_assets.core.samples import specs
from dssm_assets.core.samples.positive_sample import positive_sample as choose_positives
from dssm_assets.core.samples.sample import sample as label_events
from dssm_assets.core.samples.sample_fg import LeakReport, check_no_leak, combine_leak_reports
from dssm_assets.core.samples.sample_fg import sample_fg as place_features
from dssm_assets.steps.eve_rows import EveRows
from dssm_assets.steps.feature_tables import KEYS, of_the_eve
from dssm_assets.steps.fg import GOLDEN_ROWS, parity_check
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests
from dssm_assets.storage.engine import Target
from dssm_assets.storage.manifest import Manifest


def sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Labels the events of each day."""
    config = workspace.config
    for ds in days:
        manifest = workspace.write_query(
            specs.SAMPLE,
            ds,
            label_events,
            {"behavior": workspace.need("behavior", ds)},
            positive_events=config.events.positive,
            exposure_events=config.events.exposure,
            context_columns=config.tables.behavior.context_columns,
        )
        yield StepResult(manifest)


def sample_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Finds each day's samples among the features of the day before and proves that nothing newer came in."""
    rows = EveRows(workspace.tables)
    for ds in days:
        yield _sample_fg(workspace, ds, rows)


@dataclass(frozen=True)
class _Found:
    """What the placing of some samples found."""

    leak: LeakReport
    parity: ParityReport


@dataclass(frozen=True)
class _Placing:
    """The kernel of sample_fg: some samples with where their features stand and with their context features."""

    generator: FeatureGenerator
    ds: str
    eves: Mapping[str, Manifest | None]
    rows: EveRows
    golden: Sequence[int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, _Found]:
        # Without samples, when only types are asked for, no table is read.
        users, items = (self.rows.of(side, self.eves[side] if table.num_rows else None) for side in ("user", "item"))
        context = encode_distinct(self.generator, table, "context")
        placed = place_features(table, users, items, context)
        parity = replay(self.generator, table, context, "context", list(self.golden), start=start)
        return placed, _Found(check_no_leak(placed, self.ds), parity)


def _sample_fg(workspace: Workspace, ds: str, rows: EveRows) -> StepResult:
    labelled = workspace.need("sample", ds)
    eves = {side: of_the_eve(workspace, side, ds) for side in KEYS}
    golden = golden_rows(labelled.rows if workspace.fg_spec.of_side(Side.CONTEXT) else 0, GOLDEN_ROWS)
    placing = _Placing(workspace.generator, ds, eves, rows, golden)
    made_from = [manifest for manifest in (labelled, *eves.values()) if manifest is not None]
    # What leaks never takes the place of what stood before; the check below says so and stops what is behind.
    manifest, found = workspace.engine.write_mapped(
        Target(specs.SAMPLE_FG, ds, digests(made_from)),
        labelled,
        placing,
        as_dictionaries=_repeated_texts(labelled),
        is_whole=True,
        judge=_is_sound,
    )
    report = combine_leak_reports(part.leak for part in found)
    facts = {
        "newest_user_feature_date": report.newest_user_feature_date or "none",
        "newest_item_feature_date": report.newest_item_feature_date or "none",
        "leaking_rows": report.leaking_row_count,
        "rows_of_unknown_users": report.unknown_user_count,
        "rows_of_unknown_items": report.unknown_item_count,
    }
    sentence = (
        f"no feature row is newer than {day_before(ds)}"
        if report.passed
        else f"{report.leaking_row_count} of {report.row_count} rows carry features newer than {day_before(ds)}; "
        "materialize the feature tables of the day before again"
    )
    checks = (Check("no_leak", report.passed, sentence, facts), parity_check(merged([part.parity for part in found])))
    return StepResult(manifest, facts, checks)


def _is_sound(found: Sequence[_Found]) -> bool:
    return combine_leak_reports(part.leak for part in found).passed


def positive_sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Keeps the positives of each day; a day of nothing else is the very table that sample_fg is."""
    for ds in days:
        source = workspace.need("sample_fg", ds)
        target = Target(specs.POSITIVE_SAMPLE, ds, digests([source]))
        if workspace.tables.extremes(source, col.LABEL) == (1, 1):
            yield StepResult(workspace.tables.write_same(target.spec, source, inputs=target.inputs))
        else:
            yield StepResult(workspace.engine.write_mapped(target, source, _positives)[0])


def _positives(table: pa.Table, start: int) -> tuple[pa.Table, None]:
    return choose_positives(table), None


def _repeated_texts(manifest: Manifest) -> list[str]:
    """Returns the text columns whose values come again and again: all but the request, of which each has its own."""
    return [column.name for column in manifest.columns if column.type == "string" and column.name != col.REQUEST_ID]
