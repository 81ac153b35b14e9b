"""Samples of a day: keys and labels, joined with the features of the day before, and the positives among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from dssm_assets.core.errors import Fault, LeakError
from dssm_assets.core.samples import specs
from dssm_assets.core.samples.positive_sample import positive_sample as choose_positives
from dssm_assets.core.samples.sample import sample as label_events
from dssm_assets.core.samples.sample_fg import (
    LeakReport,
    check_join_rows,
    check_no_leak,
    combine_leak_reports,
    join_features,
)
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests
from dssm_assets.storage.engine import Bindable


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
    """Joins each day's samples with the features of the day before and proves that nothing newer came in."""
    for ds in days:
        yield _sample_fg(workspace, ds)


def _sample_fg(workspace: Workspace, ds: str) -> StepResult:
    labelled = workspace.need("sample", ds)
    sides: dict[str, Bindable] = {
        "sample": labelled,
        "user_fg": _features_of_the_eve(workspace, "user_features_fg", ds),
        "item_fg": _features_of_the_eve(workspace, "item_features_fg", ds),
    }
    with workspace.engine.run(join_features, sides) as (schema, joined):
        empty = _with_context(workspace, schema.empty_table())
        batches = (batch for table in joined for batch in _with_context(workspace, _table(table)).to_batches())
        standing = workspace.find(specs.SAMPLE_FG.name, ds)
        parts: list[LeakReport] = []
        whole = _watched(batches, ds, labelled.rows, parts, may_leak=standing is None)
        try:
            manifest = workspace.tables.write(specs.SAMPLE_FG, ds, whole, schema=empty.schema, inputs=digests(sides.values()))
        except LeakError:
            # What leaks never takes the place of what stood before; the check below says so and stops what is behind.
            manifest = workspace.need(specs.SAMPLE_FG.name, ds)
    report = combine_leak_reports(parts)
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
    return StepResult(manifest, facts, (Check("no_leak", report.passed, sentence, facts),))


def _watched(
    batches: Iterator[pa.RecordBatch], ds: str, expected: int, reports: list[LeakReport], *, may_leak: bool
) -> Iterator[pa.RecordBatch]:
    """Passes batches on and reports on each; raises at their end, before anything is visible.

    Raises:
        DuplicateKeyError, SchemaError: the join multiplied or lost rows.
        LeakError: a row carries features of a later day, and `may_leak` is off.
    """
    for batch in batches:
        reports.append(check_no_leak([batch], ds))
        yield batch
    check_join_rows(expected, sum(report.row_count for report in reports))
    leaking = sum(report.leaking_row_count for report in reports)
    if leaking and not may_leak:
        remedy = "materialize the feature tables of the day before again"
        raise LeakError(
            Fault(f"table sample_fg, day {ds}", f"features as of {day_before(ds)}", f"{leaking} newer rows", remedy)
        )


def _features_of_the_eve(workspace: Workspace, asset: str, ds: str) -> Bindable:
    """Returns the features as of the day before; on the first day of all, when nothing was known yet, none."""
    if ds == workspace.config.calendar.start.isoformat():
        return workspace.tables.open(workspace.need(asset, ds)).schema.empty_table()
    return workspace.need(asset, day_before(ds))


def positive_sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Keeps the positives of each day."""
    for ds in days:
        source = workspace.need("sample_fg", ds)
        schema = workspace.tables.open(source).schema
        chosen: Iterable[pa.RecordBatch] = (
            part for batch in workspace.tables.batches(source) for part in choose_positives(_table(batch)).to_batches()
        )
        yield StepResult(workspace.tables.write(specs.POSITIVE_SAMPLE, ds, chosen, schema=schema, inputs=digests([source])))


def _with_context(workspace: Workspace, table: pa.Table) -> pa.Table:
    encoded = workspace.generator.encode(table, side="context")
    specs.refuse_collisions("table sample_fg", {"the join": table.column_names, "context features": encoded.column_names})
    for field, column in zip(encoded.schema, encoded.columns, strict=True):
        table = table.append_column(field, column)
    return table


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
