"""Samples of a day: keys and labels, joined with the features of the day before, and the positives among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.features.distinct_rows import encode_distinct
from dssm_assets.core.features.parity import golden_rows, replay
from dssm_assets.core.samples import specs
from dssm_assets.core.samples.positive_sample import positive_sample as choose_positives
from dssm_assets.core.samples.sample import sample as label_events
from dssm_assets.core.samples.sample_fg import check_no_leak
from dssm_assets.core.samples.sample_fg import sample_fg as place_features
from dssm_assets.steps.feature_tables import FeatureTables
from dssm_assets.steps.fg import GOLDEN_ROWS, parity_check
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests
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
    held = FeatureTables(workspace)
    for ds in days:
        yield _sample_fg(workspace, ds, held)


def _sample_fg(workspace: Workspace, ds: str, held: FeatureTables) -> StepResult:
    labelled = workspace.need("sample", ds)
    table = workspace.tables.read(labelled, as_dictionaries=_repeated_texts(labelled))
    users, items = held.rows_of_the_eve("user", ds), held.rows_of_the_eve("item", ds)
    context = encode_distinct(workspace.generator, table, "context")
    placed = place_features(table, users.rows, items.rows, context)
    golden = golden_rows(table.num_rows if context.num_columns else 0, GOLDEN_ROWS)
    parity = replay(workspace.generator, table, context, "context", golden)
    report = check_no_leak(placed, ds)
    standing = workspace.find(specs.SAMPLE_FG.name, ds)
    if report.passed or standing is None:
        made_from = [manifest for manifest in (labelled, users.manifest, items.manifest) if manifest is not None]
        manifest = workspace.write_table(specs.SAMPLE_FG, ds, placed, made_from)
    else:
        # What leaks never takes the place of what stood before; the check below says so and stops what is behind.
        manifest = standing
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
    return StepResult(manifest, facts, (Check("no_leak", report.passed, sentence, facts), parity_check(parity)))


def positive_sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Keeps the positives of each day; a day of nothing else is the very table that sample_fg is."""
    for ds in days:
        source = workspace.need("sample_fg", ds)
        labels = pc.unique(workspace.tables.read(source, [col.LABEL]).column(col.LABEL)).to_pylist()
        if labels == [1]:
            manifest = workspace.tables.write_same(specs.POSITIVE_SAMPLE, source, inputs=digests([source]))
        else:
            schema = workspace.tables.open(source).schema
            chosen: Iterable[pa.RecordBatch] = (
                part for batch in workspace.tables.batches(source) for part in choose_positives(_table(batch)).to_batches()
            )
            manifest = workspace.tables.write(specs.POSITIVE_SAMPLE, ds, chosen, schema=schema, inputs=digests([source]))
        yield StepResult(manifest)


def _repeated_texts(manifest: Manifest) -> list[str]:
    """Returns the text columns whose values come again and again: all but the request, of which each has its own."""
    return [column.name for column in manifest.columns if column.type == "string" and column.name != col.REQUEST_ID]


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
