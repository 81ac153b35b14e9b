"""The three source tables: read as configured, normalised, written per day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources import canonical_tables, normalise
from dssm_assets.core.sources.normalise import Entities, convert_times
from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.sources.reader import read_days


def user_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the users of each day."""
    table, spec = workspace.config.tables.user, canonical_tables.USER_TABLE
    if table is None:
        yield from _ids_of_log(workspace, days, spec)
    else:
        yield from _entities(workspace, days, table, spec, normalise.normalise_users)


def item_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the items of each day."""
    table, spec = workspace.config.tables.item, canonical_tables.ITEM_TABLE
    if table is None:
        yield from _ids_of_log(workspace, days, spec)
    else:
        yield from _entities(workspace, days, table, spec, normalise.normalise_items)


def behavior_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the behaviour of all days in one pass over the source."""
    config = workspace.config
    timezone = config.calendar.timezone
    name = canonical_tables.BEHAVIOR_TABLE.name
    raws = read_days(config.tables.behavior, days, name=name, timezone=timezone, log=workspace.log)
    for ds, raw in raws:
        done = normalise.normalise_behavior(raw, config.tables.behavior, config.events, timezone=timezone, day=ds)
        del raw  # a long day is not held while the next is read
        manifest = workspace.tables.write(canonical_tables.BEHAVIOR_TABLE, ds, done.table)
        sentence = f"{manifest.rows} rows" if manifest.rows else "no rows, as tables.behavior.allow_empty_days permits"
        yield StepResult(manifest, done.counts, (Check("has_rows", True, sentence, {"rows": manifest.rows}),))
        del done


def _ids_of_log(workspace: Workspace, days: Sequence[str], spec: TableSpec) -> Iterator[StepResult]:
    """Writes the ids in each day's log, for users or items without a table; those of earlier days have activity already."""
    config, (key,) = workspace.config, spec.key
    for ds, raw in read_days(config.tables.behavior, days, name=spec.name, timezone=config.calendar.timezone):
        table = normalise.distinct_ids(raw, key)
        yield StepResult(workspace.tables.write(spec, ds, table), {"rows": table.num_rows})


def _entities(
    workspace: Workspace,
    days: Sequence[str],
    table: SourceTable,
    spec: TableSpec,
    normalise_entities: Callable[[pa.Table], Entities],
) -> Iterator[StepResult]:
    """Writes each day; a snapshot is read and written once and shared by all days."""
    timezone = workspace.config.calendar.timezone
    is_shared = table.layout is Layout.SNAPSHOT
    for ds, raw in read_days(table, days[:1] if is_shared else days, name=spec.name, timezone=timezone):
        done = normalise_entities(convert_times(raw, table, name=spec.name, timezone=timezone))
        manifest = workspace.tables.write(spec, ds, done.batches(), schema=done.schema, is_shared=is_shared)
        yield StepResult(manifest, done.counts)
    if is_shared:
        for ds in days[1:]:
            yield StepResult(workspace.tables.partitions.publish_shared(manifest, ds), done.counts)
