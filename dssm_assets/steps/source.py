"""The steps of the three source tables: read them as configured, convert them to the canonical form, write a partition per day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.hidden_rows import HiddenRows
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources import normalise
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, ITEM_TABLE, USER_TABLE
from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import Source
from dssm_assets.storage.sources.source_files import open_source


def user_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _write_entities(workspace, days, workspace.config.tables.user, USER_TABLE)


def item_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _write_entities(workspace, days, workspace.config.tables.item, ITEM_TABLE)


def behavior_table(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Reads the behavior of all days in one pass over the source."""
    config = workspace.config
    timezone = config.calendar.timezone
    source, hidden = open_source(config.tables.behavior, BEHAVIOR_TABLE.name), _read_hidden(workspace, days)
    for ds, raw in read_days(source, days, timezone=timezone, log=workspace.log):
        table, counts = normalise.normalise_behavior(
            raw, config.tables.behavior, config.events, timezone=timezone, day=ds, hidden=hidden
        )
        del raw  # free a long day before the next one is read
        manifest = workspace.tables.write(BEHAVIOR_TABLE, ds, table, facts=_version(source))
        del table
        sentence = f"{manifest.rows} rows" if manifest.rows else "no rows, as tables.behavior.allow_empty_days permits"
        yield StepResult(manifest, counts, (Check("has_rows", True, sentence, {"rows": manifest.rows}),))


def _write_entities(
    workspace: Workspace, days: Sequence[str], table: SourceTable | None, spec: TableSpec
) -> Iterator[StepResult]:
    """Writes the users or items of each day. A snapshot is read and written once, and all days share it.

    Without a table, a day has the ids of its log. Earlier ids are known from the activity tables.
    """
    timezone, (key,) = workspace.config.calendar.timezone, spec.key
    hidden = _read_hidden(workspace, days)
    if table is None:
        source = open_source(workspace.config.tables.behavior, spec.name)
        for ds, raw in read_days(source, days, timezone=timezone):
            ids = normalise.distinct_ids(raw, key)
            ids = hidden.drop_rows(ids) if key == USER_ID else ids
            manifest = workspace.tables.write(spec, ds, ids, facts=_version(source))
            yield StepResult(manifest, {"rows": manifest.rows})
        return
    is_shared = table.layout is Layout.SNAPSHOT
    source = open_source(table, spec.name)
    for ds, raw in read_days(source, days[:1] if is_shared else days, timezone=timezone):
        timed = normalise.convert_times(raw, table, name=spec.name, timezone=timezone)
        done = normalise.normalise_entities(timed, spec, hidden)
        manifest = workspace.tables.write(
            spec, ds, done.batches(), schema=done.schema, facts=_version(source), is_shared=is_shared
        )
        yield StepResult(manifest, {"rows": manifest.rows})
    if is_shared:
        for ds in days[1:]:
            yield StepResult(workspace.tables.partitions.publish_shared(manifest, ds), {"rows": manifest.rows})


def _read_hidden(workspace: Workspace, days: Sequence[str]) -> HiddenRows:
    """Returns the rows to leave out. Raises an InputError if whole days of `days` are hidden."""
    hidden = workspace.tables.partitions.hidden.note()
    if early := [ds for ds in days if ds < hidden.first_day]:
        expected, remedy = f"days from {hidden.first_day} on", "choose later days: earlier ones are forgotten"
        raise InputError(Fault("range of days", expected, ", ".join(early[:5]), remedy))
    return hidden


def _version(source: Source) -> dict[str, str]:
    return {"source_version": source.version} if source.version else {}
