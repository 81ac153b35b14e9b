"""Statistics, preferences and histories of users and items as of the end of each day, and their wide feature tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ibis
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features_raw import activity, all_features, preferences, raw_feature_tables
from dssm_assets.core.features_raw import behavior as log
from dssm_assets.core.features_raw.local_time import QueryDay
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.features_raw.signed_days import check_no_negative
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources.normalise import count_unknown_ids
from dssm_assets.steps.day_groups import group_days, write_days, write_group
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests
from dssm_assets.storage.engines.engine import Bindable, ByDay, Target
from dssm_assets.storage.manifest import Manifest

SETTINGS = "settings"
DAYS = "days"


def roll(
    workspace: Workspace,
    spec: TableSpec,
    ds: str,
    *,
    windows: Sequence[int],
    settings: Mapping[str, Any],
    step: Callable[..., ibis.Table],
    scratch: Callable[..., ibis.Table],
    arguments: Mapping[str, Any],
    logs: dict[str, Manifest],
    has_leaving: bool = True,
) -> StepResult:
    """Writes the rolling state of a day: from the state of the previous day, or rebuilt from all days.

    The state of the previous day is used only if it has the same settings and if no day within the largest window has
    changed since it was written.

    Args:
        workspace: the workspace.
        spec: the table of the state.
        ds: the day.
        windows: lengths of the windows in days; the largest limits the days that `step` reads and that are compared.
        settings: all other settings of the state, which are recorded with it and compared.
        step: called with the tables `today`, `previous` (where there is such a state) and `leaving_<w>` (where the day exists), with
            `ds` and the arguments.
        scratch: called with a table `behavior` of all days with a column `ds`, with `ds` and the arguments.
        arguments: of both.
        logs: day -> its log, as far as known from earlier days of the run; days of the window are added.
        has_leaving: `step` reads the days that leave the windows.
    """
    first = workspace.config.calendar.start.isoformat()
    recent = days_between(max(first, day_before(ds, max(windows))), ds)
    unknown = [day for day in recent if day not in logs]
    logs |= zip(unknown, workspace.need_all("behavior", unknown), strict=True)
    stored = {day: logs[day] for day in recent}
    previous = workspace.find(spec.name, day_before(ds)) if ds > first else None
    is_first = ds == first
    if is_first or _can_roll(previous, stored, settings, ds):
        inputs: dict[str, Bindable] = {"today": stored[ds]}
        inputs |= {
            f"leaving_{days}": stored[day] for days in windows if has_leaving and (day := day_before(ds, days)) in stored
        }
        if previous is not None:
            inputs["previous"] = previous
        query, method = step, "rolled"
    else:
        before = [day for day in workspace.tables.partitions.days("behavior") if day <= ds]
        inputs = {"behavior": ByDay(tuple(workspace.need_all("behavior", before)))}
        query, method = scratch, f"rebuilt from {len(before)} days"
        workspace.log(f"{ds}: {method}")
    facts = {SETTINGS: dict(settings), DAYS: {day: manifest.digest for day, manifest in stored.items()}}
    target = Target(spec, ds, digests([*inputs.values(), *stored.values()]), facts)
    manifest = workspace.engine.write_query(
        target, query, inputs, {"ds": ds, **arguments}, partial(_check_counts, state=spec.name)
    )
    return StepResult(manifest, {"state": method})


def _check_counts(batch: pa.RecordBatch, state: str) -> pa.RecordBatch:
    check_no_negative(batch, state)
    return batch


def _can_roll(previous: Manifest | None, stored: Mapping[str, Manifest], settings: Mapping[str, Any], ds: str) -> bool:
    if previous is None or previous.facts.get(SETTINGS) != dict(settings):
        return False
    used = previous.facts.get(DAYS)
    if not isinstance(used, dict):
        return False
    return all(used.get(day) == manifest.digest for day, manifest in stored.items() if day != ds)


def behavior(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Adds hour, weekday and item attributes to each event."""
    raw = workspace.config.raw_features
    item_columns = sorted({*raw.preference_columns, *raw.history_columns})
    timezone = workspace.config.calendar.timezone

    def with_calendar(batch: pa.RecordBatch) -> pa.RecordBatch:
        hour, weekday = log.calendar_columns(batch.column(col.EVENT_TIME_MS), timezone)
        return batch.append_column(col.HOUR, hour).append_column(col.WEEKDAY, weekday)

    tables = {name: name for name in ("behavior_table", "user_table", "item_table")}
    for group in group_days(workspace, days, tables, fixed=("user_table", "item_table")):
        counts = _unknown_ids(workspace, [inputs for _, inputs in group])
        read = [(ds, {name: inputs[name] for name in ("behavior_table", "item_table")}) for ds, inputs in group]
        written = write_group(
            workspace,
            raw_feature_tables.BEHAVIOR,
            read,
            log.enrich_behavior,
            with_calendar,
            ("item_table",),
            item_columns=item_columns,
        )
        for manifest, unknown in zip(written, counts, strict=True):
            yield StepResult(manifest, unknown)


def _unknown_ids(workspace: Workspace, days: Sequence[Mapping[str, Manifest]]) -> list[dict[str, int]]:
    """Returns for each day, which all have the same users and items, how many of its log have no row in their table.

    Raises:
        SchemaError: ids of different types.
    """
    users = workspace.tables.read(days[0]["user_table"], [col.USER_ID])
    items = workspace.tables.read(days[0]["item_table"], [col.ITEM_ID])
    logs = [workspace.tables.read(inputs["behavior_table"], [col.USER_ID, col.ITEM_ID]) for inputs in days]
    return count_unknown_ids(logs, users, items)


def user_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the counts and sums of each user and event."""
    yield from _activity(workspace, days, col.USER_ID, raw_feature_tables.USER_ACTIVITY)


def item_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the counts and sums of each item and event."""
    yield from _activity(workspace, days, col.ITEM_ID, raw_feature_tables.ITEM_ACTIVITY)


def _activity(workspace: Workspace, days: Sequence[str], entity: str, spec: TableSpec) -> Iterator[StepResult]:
    windows = tuple(workspace.config.raw_features.statistic_days)
    values = tuple(workspace.config.tables.behavior.value_columns)
    logs: dict[str, Manifest] = {}
    for ds in days:
        yield roll(
            workspace,
            spec,
            ds,
            windows=windows,
            settings={"windows": list(windows), "values": list(values)},
            step=_roll_activity,
            scratch=_build_activity,
            arguments={"entity": entity, "windows": windows, "values": values},
            logs=logs,
        )


def _roll_activity(
    today: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    entity: str,
    windows: Sequence[int],
    values: Sequence[str],
    **leaving: ibis.Table,
) -> ibis.Table:
    by_window = {window: leaving.get(f"leaving_{window}") for window in windows}
    return activity.roll_activity(
        entity, today=today, leaving=by_window, previous=previous, statistic_days=windows, value_columns=values
    )


def _build_activity(
    behavior: ibis.Table, *, ds: QueryDay, entity: str, windows: Sequence[int], values: Sequence[str]
) -> ibis.Table:
    return activity.build_activity(entity, behavior, ds, statistic_days=windows, value_columns=values)


def pair_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the last day of each user, item and event."""
    longest = max(workspace.config.raw_features.statistic_days)
    logs: dict[str, Manifest] = {}
    for ds in days:
        yield roll(
            workspace,
            raw_feature_tables.PAIR_ACTIVITY,
            ds,
            windows=[longest],
            settings={"window": longest},
            step=_roll_pairs,
            scratch=activity.build_pair_activity,
            arguments={"window_days": longest},
            logs=logs,
            has_leaving=False,
        )


def _roll_pairs(today: ibis.Table, previous: ibis.Table | None = None, *, ds: QueryDay, window_days: int) -> ibis.Table:
    return activity.roll_pair_activity(today, previous, ds=ds, window_days=window_days)


def user_preferences(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the number of positive events of each user with each value of an item attribute."""
    raw = workspace.config.raw_features
    columns, window = tuple(raw.preference_columns), raw.preference_days
    positive = tuple(workspace.config.events.positive)
    logs: dict[str, Manifest] = {}
    for ds in days:
        if not columns:
            yield _no_preferences(workspace, ds)
            continue
        yield roll(
            workspace,
            raw_feature_tables.USER_PREFERENCES,
            ds,
            windows=[window],
            settings={"columns": list(columns), "window": window, "positive": list(positive)},
            step=_roll_preferences,
            scratch=_build_preferences,
            arguments={"window": window, "columns": columns, "positive": positive},
            logs=logs,
        )


def _roll_preferences(
    today: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    window: int,
    columns: Sequence[str],
    positive: Sequence[str],
    **leaving: ibis.Table,
) -> ibis.Table:
    return preferences.roll_preferences(
        today=today,
        leaving=leaving.get(f"leaving_{window}"),
        previous=previous,
        preference_columns=columns,
        positive_events=positive,
    )


def _build_preferences(
    behavior: ibis.Table, *, ds: QueryDay, window: int, columns: Sequence[str], positive: Sequence[str]
) -> ibis.Table:
    return preferences.build_preferences(
        behavior, ds, preference_days=window, preference_columns=columns, positive_events=positive
    )


def _no_preferences(workspace: Workspace, ds: str) -> StepResult:
    source = workspace.need("behavior", ds)
    user_id = workspace.tables.open(source).schema.field(col.USER_ID)
    fields = [pa.field(column.name, column.type or user_id.type) for column in raw_feature_tables.USER_PREFERENCES.columns]
    return StepResult(workspace.write_table(raw_feature_tables.USER_PREFERENCES, ds, pa.schema(fields).empty_table(), [source]))


def user_history(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Lists the positive events of each user on each day."""
    written = write_days(
        workspace,
        raw_feature_tables.USER_HISTORY,
        days,
        log.collect_user_history,
        {"behavior": "behavior"},
        positive_events=workspace.config.events.positive,
        history_columns=workspace.config.raw_features.history_columns,
    )
    yield from map(StepResult, written)


def user_all_feature(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Joins profile, statistics and preferences of each user."""
    plan = FeaturePlan.from_config(workspace.config)
    for ds in days:
        inputs = {
            name: workspace.need(name, ds) for name in ("user_table", "user_activity", "pair_activity", "user_preferences")
        }
        yield StepResult(
            workspace.write_query(
                raw_feature_tables.USER_ALL_FEATURE,
                ds,
                all_features.join_user_features,
                inputs,
                None,
                col.USER_ID,
                ds=ds,
                plan=plan,
            )
        )


def item_all_feature(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Joins profile and statistics of each item."""
    plan = FeaturePlan.from_config(workspace.config)
    for ds in days:
        inputs = {name: workspace.need(name, ds) for name in ("item_table", "item_activity", "pair_activity")}
        yield StepResult(
            workspace.write_query(
                raw_feature_tables.ITEM_ALL_FEATURE,
                ds,
                all_features.join_item_features,
                inputs,
                None,
                col.ITEM_ID,
                ds=ds,
                plan=plan,
            )
        )
