"""The three source tables: read as configured, normalised, written per day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources import normalise
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, ITEM_TABLE, USER_TABLE
from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.sources.reader import read_days


def user_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the users of each day."""
    return _write_entities(workspace, days, workspace.config.tables.user, USER_TABLE)


def item_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the items of each day."""
    return _write_entities(workspace, days, workspace.config.tables.item, ITEM_TABLE)


def behavior_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the behaviour of all days in one pass over the source."""
    config = workspace.config
    source, timezone = config.tables.behavior, config.calendar.timezone
    for ds, raw in read_days(source, days, name=BEHAVIOR_TABLE.name, timezone=timezone, log=workspace.log):
        table, counts = normalise.normalise_behavior(raw, source, config.events, timezone=timezone, day=ds)
        del raw  # a long day is not held while the next is read
        manifest = workspace.tables.write(BEHAVIOR_TABLE, ds, table)
        del table
        sentence = f"{manifest.rows} rows" if manifest.rows else "no rows, as tables.behavior.allow_empty_days permits"
        yield StepResult(manifest, counts, (Check("has_rows", True, sentence, {"rows": manifest.rows}),))


def _write_entities(
    workspace: Workspace, days: Sequence[str], table: SourceTable | None, spec: TableSpec
) -> Iterator[StepResult]:
    """Writes users or items of each day; a snapshot is read and written once and shared by all days.

    Without a table they are the ids in the day's log; those of earlier days have activity already.
    """
    timezone, (key,) = workspace.config.calendar.timezone, spec.key
    if table is None:
        for ds, raw in read_days(workspace.config.tables.behavior, days, name=spec.name, timezone=timezone):
            manifest = workspace.tables.write(spec, ds, normalise.distinct_ids(raw, key))
            yield StepResult(manifest, {"rows": manifest.rows})
        return
    is_shared = table.layout is Layout.SNAPSHOT
    for ds, raw in read_days(table, days[:1] if is_shared else days, name=spec.name, timezone=timezone):
        timed = normalise.convert_times(raw, table, name=spec.name, timezone=timezone)
        done = normalise.normalise_entities(timed, spec)
        manifest = workspace.tables.write(spec, ds, done.batches(), schema=done.schema, is_shared=is_shared)
        yield StepResult(manifest, {"rows": manifest.rows})
    if is_shared:
        for ds in days[1:]:
            yield StepResult(workspace.tables.partitions.publish_shared(manifest, ds), {"rows": manifest.rows})
