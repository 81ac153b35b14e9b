"""Steps of the raw features: statistics, preferences and histories of users and items at the end of each day, and wide tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ibis
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, refuse_type_change
from dssm_assets.core.features_raw import activity, all_features, preferences, raw_feature_tables
from dssm_assets.core.features_raw import behavior as log
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.read_once import ReadOnce
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests, each_day
from dssm_assets.storage.engines.engine import BatchKernel, Bindable, ByDay, Target
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import TableStore

SETTINGS = "settings"
DAYS = "days"


@dataclass(frozen=True)
class RollingState:
    """A state at the end of each day, computed from the state of the day before and the log.

    Attributes:
        query: called with the tables `log` and `previous`, `ds` and the arguments. With `previous`, `log` has the day itself and
            the days that leave a window; without `previous` it has all days.
        longest: the longest window, in days. The state of the day before is used only if no day of this window has changed since.
        leaving: lengths of the windows, in days. The query subtracts the oldest day of each.
        settings: stored with the state. A state with other settings is rebuilt.
    """

    spec: TableSpec
    query: Callable[..., ibis.Table]
    arguments: Mapping[str, Any]
    longest: int
    leaving: Sequence[int]
    settings: Mapping[str, Any]


def roll(workspace: Workspace, state: RollingState, days: Sequence[str]) -> Iterator[StepResult]:
    """Writes each day's state: from the state of the day before if that is still valid, else from all days."""
    logs: dict[str, Manifest] = {}
    for ds in days:
        yield _roll_day(workspace, state, ds, logs)


def _roll_day(workspace: Workspace, state: RollingState, ds: str, logs: dict[str, Manifest]) -> StepResult:
    """Writes the state of a day. Adds missing manifests of log days to `logs`."""
    start = workspace.config.calendar.start.isoformat()
    recent = days_between(max(start, day_before(ds, state.longest)), ds)
    unknown = [day for day in recent if day not in logs]
    logs |= zip(unknown, workspace.need_all("behavior", unknown), strict=True)
    previous = None if ds == start else workspace.find(state.spec.name, day_before(ds))
    if previous is not None and _is_current(previous, state, {day: logs[day] for day in recent[:-1]}):
        _refuse_other_ids(workspace, state.spec, previous, logs[ds])
        leaving = [day for window in state.leaving if (day := day_before(ds, window)) >= start]
        inputs: dict[str, Bindable] = {"log": ByDay(tuple(logs[day] for day in sorted({*leaving, ds}))), "previous": previous}
        method = "rolled"
    else:
        past = [day for day in workspace.tables.partitions.days("behavior") if start <= day <= ds]
        inputs = {"log": ByDay(tuple(workspace.need_all("behavior", past)))}
        method = "rolled" if ds == start else f"rebuilt from {len(past)} days"
        workspace.log(f"{ds}: {method}")
    facts = {SETTINGS: dict(state.settings), DAYS: {day: logs[day].digest for day in recent}}
    built_from = digests([*inputs.values(), *(logs[day] for day in recent)])
    target = Target(state.spec, ds, built_from, facts, by_key=state.spec.key[0])
    manifest = workspace.engine.write_query(target, state.query, inputs, {"ds": ds, **state.arguments})
    return StepResult(manifest, {"state": method})


def _is_current(previous: Manifest, state: RollingState, recent: Mapping[str, Manifest]) -> bool:
    used = previous.facts.get(DAYS)
    if not isinstance(used, dict):
        return False
    # States of users are rewritten without forgotten users. States of items still count their events, so they are rebuilt.
    is_of_users = state.spec.key[0] == col.USER_ID
    is_same = (one.has_had(used.get(day)) if is_of_users else one.digest == used.get(day) for day, one in recent.items())
    return all(is_same) and previous.facts.get(SETTINGS) == dict(state.settings)


def _types(manifest: Manifest) -> dict[str, str]:
    return {column.name: column.type for column in manifest.columns}


def _refuse_other_ids(workspace: Workspace, spec: TableSpec, previous: Manifest, today: Manifest) -> None:
    before, now = _types(previous), _types(today)
    for name in spec.key:
        if name in now and before[name] != now[name]:
            types = [workspace.tables.read_schema(manifest).field(name).type for manifest in (previous, today)]
            refuse_type_change(f"table {spec.name}, column {name}", *types)


def behavior(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    raw = workspace.config.raw_features
    item_columns = tuple(sorted({*raw.preference_columns, *raw.history_columns}))
    once = ReadOnce(workspace.tables)
    for ds in days:
        events, users, items = (workspace.need(name, ds) for name in ("behavior_table", "user_table", "item_table"))
        log.check_columns(_types(events), _types(items), _types(users), item_columns)
        enrich = partial(_enrich_rows, once, users, items, item_columns, workspace.config.calendar.timezone)
        # Each request has its own id, so a dictionary would save nothing.
        texts = [column.name for column in events.columns if column.type == "string" and column.name != col.REQUEST_ID]
        target = Target(raw_feature_tables.BEHAVIOR, ds, digests([events, items]))
        manifest, parts = workspace.engine.write_mapped(target, events, enrich, as_dictionaries=texts)
        yield StepResult(manifest, log.count_unknown_ids(parts))


def _enrich_rows(
    once: ReadOnce, users: Manifest, items: Manifest, item_columns: Sequence[str], timezone: str, table: pa.Table, start: int
) -> tuple[pa.Table, log.UnknownIds]:
    return log.enrich_behavior(table, once.get(users, _read_users), once.get(items, _read_items, item_columns), timezone)


def _read_users(tables: TableStore, manifest: Manifest) -> IdIndex:
    return IdIndex(tables.read(manifest, [col.USER_ID]).column(col.USER_ID), where="user_table")


def _read_items(tables: TableStore, manifest: Manifest, columns: Sequence[str]) -> log.ItemTexts:
    return log.ItemTexts(tables.read(manifest, [col.ITEM_ID, *columns], as_dictionaries=columns), columns)


def user_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _roll_activity(workspace, raw_feature_tables.USER_ACTIVITY, days)


def item_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _roll_activity(workspace, raw_feature_tables.ITEM_ACTIVITY, days)


def _roll_activity(workspace: Workspace, spec: TableSpec, days: Sequence[str]) -> Iterator[StepResult]:
    windows = tuple(workspace.config.raw_features.statistic_days)
    values = tuple(workspace.config.tables.behavior.value_columns)
    state = RollingState(
        spec,
        activity.roll_activity,
        arguments={"entity": spec.key[0], "statistic_days": windows, "value_columns": values},
        longest=max(windows),
        leaving=windows,
        settings={"windows": list(windows), "values": list(values)},
    )
    return roll(workspace, state, days)


def pair_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    longest = max(workspace.config.raw_features.statistic_days)
    state = RollingState(
        raw_feature_tables.PAIR_ACTIVITY,
        activity.roll_pair_activity,
        arguments={"window_days": longest},
        longest=longest,
        leaving=(),
        settings={"window": longest},
    )
    return roll(workspace, state, days)


def user_preferences(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    raw = workspace.config.raw_features
    columns, window, positive = tuple(raw.preference_columns), raw.preference_days, tuple(workspace.config.events.positive)
    if not columns:
        return (_write_no_preferences(workspace, ds) for ds in days)
    state = RollingState(
        raw_feature_tables.USER_PREFERENCES,
        preferences.roll_preferences,
        arguments={"preference_days": window, "preference_columns": columns, "positive_events": positive},
        longest=window,
        leaving=[window],
        settings={"columns": list(columns), "window": window, "positive": list(positive)},
    )
    return roll(workspace, state, days)


def _write_no_preferences(workspace: Workspace, ds: str) -> StepResult:
    source = workspace.need("behavior", ds)
    user_id = workspace.tables.read_schema(source).field(col.USER_ID)
    fields = [pa.field(column.name, column.type or user_id.type) for column in raw_feature_tables.USER_PREFERENCES.columns]
    return StepResult(workspace.write_table(raw_feature_tables.USER_PREFERENCES, ds, pa.schema(fields).empty_table(), [source]))


@each_day
def user_history(workspace: Workspace, ds: str) -> StepResult:
    config = workspace.config
    manifest = workspace.write_query(
        raw_feature_tables.USER_HISTORY,
        ds,
        log.collect_user_history,
        {"behavior": workspace.need("behavior", ds)},
        positive_events=tuple(config.events.positive),
        history_columns=tuple(config.raw_features.history_columns),
    )
    return StepResult(manifest)


@each_day
def user_all_feature(workspace: Workspace, ds: str) -> StepResult:
    tables = ("user_table", "user_activity", "pair_activity", "user_preferences")
    order = partial(preferences.order_preferences, attributes=workspace.config.raw_features.preference_columns)
    return _join_day(workspace, ds, raw_feature_tables.USER_ALL_FEATURE, all_features.join_user_features, tables, order)


@each_day
def item_all_feature(workspace: Workspace, ds: str) -> StepResult:
    tables = ("item_table", "item_activity", "pair_activity")
    return _join_day(workspace, ds, raw_feature_tables.ITEM_ALL_FEATURE, all_features.join_item_features, tables)


def _join_day(
    workspace: Workspace,
    ds: str,
    spec: TableSpec,
    expression: Callable[..., ibis.Table],
    tables: Sequence[str],
    kernel: BatchKernel | None = None,
) -> StepResult:
    inputs = {name: workspace.need(name, ds) for name in tables}
    plan = FeaturePlan.from_config(workspace.config, ds)
    return StepResult(workspace.write_query(spec, ds, expression, inputs, kernel, spec.key[0], ds=ds, plan=plan))
