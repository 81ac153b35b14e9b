"""The days after a bundle's day, up to today: stored days, and the rest read from the sources as they are now.

A day that has not ended has no partition, because its statistics would be incomplete. So rows that are read here go to a store
of its own over the regular one, by the steps of the daily tables, and is removed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources.canonical_tables import ITEM_TABLE, USER_TABLE
from dssm_assets.steps import features_raw, sample, source
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets.storage.sources.source_files import day_folders, open_folder

_HISTORY = "user_history_fg"


@dataclass(frozen=True)
class FgFiles:
    """Feature definitions with the folder of the files that they name, and the hash function of their texts."""

    definitions: Mapping[str, Any]
    folder: Path
    hash_function: HashFunction


@dataclass(frozen=True)
class FreshDays:
    """The tables after a day.

    Attributes:
        workspace: has these tables besides the regular ones, and encodes features by the given definitions.
        tables: "user" or "item" -> the partitions with the newest rows: one, or without such a table in `tables` one per day, with the
            ids of its log.
        history: user_history_fg of the days, ascending.
        end: the day after the last.
    """

    workspace: Workspace
    tables: Mapping[str, list[Manifest]]
    history: list[Manifest]
    end: str


@contextmanager
def open_fresh_days(workspace: Workspace, fg: FgFiles, after: str, today: str) -> Iterator[FreshDays]:
    """Yields the tables after a day, up to and including today; it exists as long as the context.

    Args:
        after: the last day that is known already, YYYY-MM-DD.
        today: the day that has not ended, in the time zone of the calendar; an earlier one than `after` reads the day after that.

    Raises:
        InputError: a source cannot be read, or its rows are refused, as by the daily tables.
    """
    last = max(today, day_before(after, -1))
    days = days_between(day_before(after, -1), last)
    with workspace.tables.partitions.staging_in_store() as folder:
        fresh = _overlay(workspace, folder, fg)
        unread = [ds for ds in days if workspace.find(_HISTORY, ds) is None]
        tables = {
            side: _read_entities(fresh, table, spec, step, days, unread, after)
            for side, table, spec, step in (
                ("user", workspace.config.tables.user, USER_TABLE, source.user_table),
                ("item", workspace.config.tables.item, ITEM_TABLE, source.item_table),
            )
        }
        for step in (source.behavior_table, features_raw.behavior, features_raw.user_history, sample.user_history_fg):
            for _ in step(fresh, unread):
                pass
        yield FreshDays(fresh, tables, fresh.need_all(_HISTORY, days), day_before(last, -1))


def _overlay(workspace: Workspace, folder: str, fg: FgFiles) -> Workspace:
    """Returns a workspace that writes to a folder; a day may have no events yet."""
    config = workspace.config
    behavior = config.tables.behavior.model_copy(update={"allow_empty_days": True})
    tables = config.tables.model_copy(update={"behavior": behavior})
    features = config.features.model_copy(update={"hash_function": fg.hash_function})
    loaded = replace(
        workspace.loaded,
        config=config.model_copy(update={"tables": tables, "features": features}),
        fg=fg.definitions,
        fg_folder=fg.folder,
    )
    return workspace.over(loaded, OverlayStore(workspace.tables.partitions, "fresh", folder))


def _read_entities(
    fresh: Workspace,
    table: SourceTable | None,
    spec: TableSpec,
    step: Callable[[Workspace, Sequence[str]], Iterator[StepResult]],
    days: Sequence[str],
    unread: Sequence[str],
    after: str,
) -> list[Manifest]:
    """Returns the partitions with the newest rows; the days that are read have them too."""
    if table is None:
        for _ in step(fresh, unread):
            pass
        return fresh.need_all(spec.name, days)
    targets = sorted({*unread, days[-1]})
    if table.layout is not Layout.DS_FOLDERS:
        for _ in step(fresh, targets):
            pass
        return [fresh.need(spec.name, days[-1])]
    landed = [ds for ds in day_folders(open_folder(table, spec.name)) if after < ds <= days[-1]]
    if landed:
        (read,) = step(fresh, [max(landed)])
        newest = read.manifest
    else:
        newest = fresh.need(spec.name, after)
    rows = fresh.tables.read(newest)
    for ds in targets:
        if ds != newest.ds:
            fresh.tables.write(spec, ds, rows)
    return [newest]
