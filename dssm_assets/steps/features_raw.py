"""Statistics, preferences and histories of users and items as of the end of each day, and their wide feature tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, refuse_type_change
from dssm_assets.core.features_raw import activity, all_features, preferences, raw_feature_tables
from dssm_assets.core.features_raw import behavior as log
from dssm_assets.core.features_raw.local_time import QueryDay, window_start
from dssm_assets.core.features_raw.plan import (
    ATTRIBUTE,
    DAYS_SINCE_LAST_EVENT,
    FIRST_EVENT_TIME_MS,
    LAST_DATE,
    LAST_EVENT_TIME_MS,
    FeaturePlan,
    preference,
)
from dssm_assets.core.features_raw.signed_days import check_no_negative, list_moves, merge_changes, running_states
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources.normalise import count_unknown_ids
from dssm_assets.steps.day_groups import GROUP_DAYS, Inputs, group_days, has_own_day, read_together, write_group
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests
from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.engines.engine import DAY, Bindable, ByDay, Target, has_plain_type, plain_schema
from dssm_assets.storage.layout import is_shared
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import AscendingRows, stored_schema

SETTINGS = "settings"
DAYS = "days"
MAX_CHANGES: Final = 1 << 17
"""Rows of the state before and changes by the log that are added up in memory at most, to roll several days at once."""
MAX_EVENTS: Final = 1 << 22
"""Rows of a day's log whose events are listed in memory at most."""


@dataclass(frozen=True)
class RollingState:
    """A state that follows from the one of the previous day.

    Attributes:
        windows: lengths of the windows in days; the largest limits the days that are read and compared.
        settings: all other settings, which are recorded with the state and compared.
        step: called with the tables `today`, `previous` (where there is such a state) and `leaving_<w>` (where the day exists), with
            `ds` and the arguments.
        changes: called with the tables `log` of all days that step reads, `previous` and `moves` (`list_moves`), with `ds`, the first
            day, and the arguments; returns what `running_states` adds up.
        running: arguments of `running_states`: the columns by how they are added up.
        scratch: called with a table `behavior` of all days with a column `ds`, with `ds` and the arguments.
        arguments: of the four queries.
        keep: returns which of some rows the state of a day has; by default all of them.
        has_leaving: days that leave a window are read too.
        day: called like step without `previous`: returns what a single long day changes, for `merge_changes`. Where DuckDB does not run
            in this process, such a day is made by step.
        merging: arguments of `merge_changes`: the columns by how they are added up; others are those of the change.
        repeated: columns of few texts, which are read as dictionaries for `merge_changes`.
    """

    spec: TableSpec
    windows: Sequence[int]
    settings: Mapping[str, Any]
    step: Callable[..., ibis.Table]
    changes: Callable[..., ibis.Table]
    running: Mapping[str, Sequence[str]]
    scratch: Callable[..., ibis.Table]
    arguments: Mapping[str, Any]
    day: Callable[..., ibis.Table]
    merging: Mapping[str, Sequence[str]]
    repeated: Sequence[str]
    keep: Callable[[pa.Table, str], Any] = lambda table, ds: pc.is_valid(table.column(0))
    has_leaving: bool = True


def roll(workspace: Workspace, state: RollingState, days: Sequence[str]) -> Iterator[StepResult]:
    """Writes the rolling state of each day: from the state of the previous day, or rebuilt from all days.

    The state of the previous day is used only if it has the same settings and if no day within the largest window has
    changed since it was written. Several short days in a row are made with one query.
    """
    logs: dict[str, Manifest] = {}
    waiting = list(days)
    while waiting:
        group = _days_together(workspace, state, waiting, logs)
        if len(group) > 1:
            yield from _roll_days(workspace, state, group, logs)
        else:
            yield _roll_day(workspace, state, group[0], logs)
        del waiting[: len(group)]


def _recent_logs(workspace: Workspace, state: RollingState, ds: str, logs: dict[str, Manifest]) -> dict[str, Manifest]:
    """Returns the logs of the largest window of a day and of the day before it; reads those that are not known yet."""
    first = workspace.config.calendar.start.isoformat()
    recent = days_between(max(first, day_before(ds, max(state.windows))), ds)
    unknown = [day for day in recent if day not in logs]
    logs |= zip(unknown, workspace.need_all("behavior", unknown), strict=True)
    return {day: logs[day] for day in recent}


def _find_previous(workspace: Workspace, state: RollingState, ds: str) -> Manifest | None:
    is_first = ds == workspace.config.calendar.start.isoformat()
    return None if is_first else workspace.find(state.spec.name, day_before(ds))


def _days_together(
    workspace: Workspace, state: RollingState, waiting: Sequence[str], logs: dict[str, Manifest]
) -> Sequence[str]:
    """Returns the first days of those that wait, to be made with one query: a single one if they are long or cannot roll."""
    first = waiting[0]
    stored, previous = _recent_logs(workspace, state, first, logs), _find_previous(workspace, state, first)
    if (
        previous is None
        or not isinstance(workspace.engine, DuckDBEngine)
        or not _can_roll(previous, stored, state.settings, first)
    ):
        return waiting[:1]
    columns = stored[first].columns
    is_plain = all(log.columns == columns for log in stored.values()) and DAY not in [column.name for column in columns]
    moves = 1 + len(state.windows) if state.has_leaving else 1
    count, changes = 1, previous.rows + moves * stored[first].rows
    for before, ds in itertools.pairwise(waiting[:GROUP_DAYS]):
        log = workspace.find("behavior", ds)
        if not is_plain or log is None or log.columns != columns or before != day_before(ds):
            break
        changes += moves * log.rows
        if changes > MAX_CHANGES:
            break
        logs[ds] = log
        count += 1
    return waiting[:count]


def _roll_days(
    workspace: Workspace, state: RollingState, days: Sequence[str], logs: dict[str, Manifest]
) -> Iterator[StepResult]:
    """Rolls the state over consecutive days: one query lists the changes, which are added up in this process."""
    last = _find_previous(workspace, state, days[0])
    assert last is not None and isinstance(workspace.engine, DuckDBEngine)
    leaving = [day_before(ds, window) for window in state.windows for ds in days] if state.has_leaving else []
    inputs: dict[str, Bindable] = {
        "log": ByDay(tuple(logs[ds] for ds in sorted({*days, *leaving}) if ds in logs)),
        "previous": last,
    }
    if state.has_leaving:
        inputs["moves"] = list_moves(days, state.windows)
    added = workspace.engine.table(state.changes, inputs, ds=days[0], **state.arguments)
    for ds, table in running_states(added, days, state.spec.key, **state.running):
        kept = table.filter(state.keep(table, ds))
        check_no_negative(kept, state.spec.name)
        target = _target(state, ds, _recent_logs(workspace, state, ds, logs), [last])
        last = workspace.tables.write(state.spec, ds, kept, inputs=target.inputs, facts=target.facts)
        yield StepResult(last, {"state": "rolled"})


def _roll_day(workspace: Workspace, state: RollingState, ds: str, logs: dict[str, Manifest]) -> StepResult:
    """Rolls the state to a day, or rebuilds it."""
    stored, previous = _recent_logs(workspace, state, ds, logs), _find_previous(workspace, state, ds)
    start = workspace.config.calendar.start.isoformat()
    if ds == start or _can_roll(previous, stored, state.settings, ds):
        inputs: dict[str, Bindable] = {"today": stored[ds]}
        gone = {f"leaving_{days}": stored.get(day_before(ds, days)) for days in state.windows if state.has_leaving}
        inputs |= {name: log for name, log in gone.items() if log is not None}
        if previous is not None:
            inputs["previous"] = previous
        query, method = state.step, "rolled"
    else:
        before = [day for day in workspace.tables.partitions.days("behavior") if start <= day <= ds]
        inputs = {"behavior": ByDay(tuple(workspace.need_all("behavior", before)))}
        query, method = state.scratch, f"rebuilt from {len(before)} days"
        workspace.log(f"{ds}: {method}")
    target = _target(state, ds, stored, list(inputs.values()))
    if previous is not None and method == "rolled" and isinstance(workspace.engine, DuckDBEngine):
        return StepResult(_merge_day(workspace, workspace.engine, state, target, inputs), {"state": method})
    kernel = partial(_check_counts, state=state.spec.name)
    manifest = workspace.engine.write_query(target, query, inputs, {"ds": ds, **state.arguments}, kernel)
    return StepResult(manifest, {"state": method})


def _merge_day(
    workspace: Workspace, engine: DuckDBEngine, state: RollingState, target: Target, inputs: Mapping[str, Bindable]
) -> Manifest:
    """Rolls a state over one day: a query lists what the day changes, which is added to the state before as that is read.

    The state is in the order of its key already: a query that joins and sorts it again takes twice as long.

    Raises:
        SchemaError: ids have another type than in the state before.
    """
    given, key = dict(inputs), state.spec.key
    previous = given.pop("previous")
    assert isinstance(previous, Manifest)
    before = workspace.tables.read_ascending(previous, key[0], as_dictionaries=state.repeated)
    with engine.run(state.day, given, ds=target.ds, **state.arguments) as (schema, batches):
        for name in key:
            types = [known.field(name).type for known in (stored_schema(before.schema), schema)]
            refuse_type_change(f"table {target.spec.name}, column {name}", *types)
        changes = AscendingRows(batches, key[0], before.schema, where=f"changes of {target.spec.name}")

        def merge() -> Iterator[pa.RecordBatch]:
            while waiting := [last for last in (before.peek_key(), changes.peek_key()) if last is not None]:
                old, new = (part.read_through(min(waiting)) for part in (before, changes))
                made = merge_changes(old, new, key, lambda merged: state.keep(merged, target.ds), **state.merging)
                check_no_negative(made, target.spec.name)
                yield from made.to_batches()

        return workspace.tables.write(target.spec, target.ds, merge(), schema=schema, inputs=target.inputs, facts=target.facts)


def _target(state: RollingState, ds: str, stored: Mapping[str, Manifest], others: Sequence[Bindable]) -> Target:
    facts = {SETTINGS: dict(state.settings), DAYS: {day: manifest.digest for day, manifest in stored.items()}}
    return Target(state.spec, ds, digests([*others, *stored.values()]), facts, by_key=state.spec.key[0])


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
    known: dict[str, tuple[str, IdIndex]] = {}
    for group in group_days(workspace, days, tables, fixed=("user_table", "item_table")):
        counts = _count_unknown_ids(workspace, [inputs for _, inputs in group], known)
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


def _count_unknown_ids(
    workspace: Workspace, days: Sequence[Mapping[str, Manifest]], known: dict[str, tuple[str, IdIndex]]
) -> list[dict[str, int]]:
    """Returns for each day, which all have the same users and items, how many of its log have no row in their table.

    Args:
        known: table -> digest and ids, which are read if the digest is another one.

    Raises:
        SchemaError: ids of different types.
    """
    for table, column in (("user_table", col.USER_ID), ("item_table", col.ITEM_ID)):
        manifest = days[0][table]
        if table not in known or known[table][0] != manifest.digest:
            known[table] = manifest.digest, IdIndex(workspace.tables.read(manifest, [column]).column(column), where=table)
    logs = [workspace.tables.read(inputs["behavior_table"], [col.USER_ID, col.ITEM_ID]) for inputs in days]
    return count_unknown_ids(logs, known["user_table"][1], known["item_table"][1])


def user_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the counts and sums of each user and event."""
    yield from _activity(workspace, days, col.USER_ID, raw_feature_tables.USER_ACTIVITY)


def item_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the counts and sums of each item and event."""
    yield from _activity(workspace, days, col.ITEM_ID, raw_feature_tables.ITEM_ACTIVITY)


def _activity(workspace: Workspace, days: Sequence[str], entity: str, spec: TableSpec) -> Iterator[StepResult]:
    windows = tuple(workspace.config.raw_features.statistic_days)
    values = tuple(workspace.config.tables.behavior.value_columns)
    added = {
        "sums": activity.list_sums(windows, values),
        "least": [FIRST_EVENT_TIME_MS],
        "greatest": [LAST_EVENT_TIME_MS],
    }
    state = RollingState(
        spec,
        windows,
        settings={"windows": list(windows), "values": list(values)},
        step=_roll_activity,
        changes=activity.list_activity_changes,
        running=added,
        day=_list_activity_changes_of_day,
        merging=added,
        repeated=[col.EVENT],
        scratch=activity.build_activity,
        arguments={"entity_column": entity, "statistic_days": windows, "value_columns": values},
    )
    return roll(workspace, state, days)


def _list_activity_changes_of_day(**given: Any) -> ibis.Table:
    return _roll_activity(is_change=True, **given)


def _roll_activity(
    today: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    statistic_days: Sequence[int],
    **given: Any,
) -> ibis.Table:
    leaving = {window: given.pop(f"leaving_{window}", None) for window in statistic_days}
    return activity.roll_activity(today=today, leaving=leaving, previous=previous, statistic_days=statistic_days, **given)


def pair_activity(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the last day of each user, item and event."""
    longest = max(workspace.config.raw_features.statistic_days)
    state = RollingState(
        raw_feature_tables.PAIR_ACTIVITY,
        windows=[longest],
        settings={"window": longest},
        step=activity.roll_pair_activity,
        changes=activity.list_pair_changes,
        running={"greatest": [LAST_DATE]},
        scratch=activity.build_pair_activity,
        arguments={"window_days": longest},
        keep=partial(_is_in_window, longest=longest),
        has_leaving=False,
        day=activity.roll_pair_activity,
        merging={},
        repeated=[col.EVENT, LAST_DATE],
    )
    return roll(workspace, state, days)


def _is_in_window(table: pa.Table, ds: str, *, longest: int) -> pa.ChunkedArray:
    dates = table.column(LAST_DATE).dictionary_encode().unify_dictionaries()
    return pa.chunked_array(
        [pc.greater_equal(part.dictionary, window_start(ds, longest)).take(part.indices) for part in dates.chunks], pa.bool_()
    )


def user_preferences(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Rolls the number of positive events of each user with each value of an item attribute."""
    raw = workspace.config.raw_features
    columns, window = tuple(raw.preference_columns), raw.preference_days
    positive = tuple(workspace.config.events.positive)
    if not columns:
        return (_no_preferences(workspace, ds) for ds in days)
    state = RollingState(
        raw_feature_tables.USER_PREFERENCES,
        windows=[window],
        settings={"columns": list(columns), "window": window, "positive": list(positive)},
        step=_roll_preferences,
        changes=_list_preference_changes,
        running={"sums": [col.COUNT]},
        keep=lambda table, ds: pc.not_equal(table.column(col.COUNT), 0),
        scratch=preferences.build_preferences,
        arguments={"preference_days": window, "preference_columns": columns, "positive_events": positive},
        day=_list_preference_changes_of_day,
        merging={"sums": [col.COUNT]},
        repeated=[ATTRIBUTE, col.VALUE],
    )
    return roll(workspace, state, days)


def _list_preference_changes(*, preference_days: int, **given: Any) -> ibis.Table:
    return preferences.list_preference_changes(**given)


def _list_preference_changes_of_day(**given: Any) -> ibis.Table:
    return _roll_preferences(is_change=True, **given)


def _roll_preferences(
    today: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    preference_days: int,
    **given: Any,
) -> ibis.Table:
    leaving = given.pop(f"leaving_{preference_days}", None)
    return preferences.roll_preferences(today=today, leaving=leaving, previous=previous, **given)


def _no_preferences(workspace: Workspace, ds: str) -> StepResult:
    source = workspace.need("behavior", ds)
    user_id = workspace.tables.read_schema(source).field(col.USER_ID)
    fields = [pa.field(column.name, column.type or user_id.type) for column in raw_feature_tables.USER_PREFERENCES.columns]
    return StepResult(workspace.write_table(raw_feature_tables.USER_PREFERENCES, ds, pa.schema(fields).empty_table(), [source]))


def user_history(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Lists the positive events of each user on each day, in this process if it is a long day that fits into memory."""
    spec, extra = raw_feature_tables.USER_HISTORY, list(workspace.config.raw_features.history_columns)
    arguments: dict[str, Any] = {"positive_events": workspace.config.events.positive, "history_columns": extra}
    for group in group_days(workspace, days, {"behavior": "behavior"}):
        rows = sum(inputs["behavior"].rows for _, inputs in group)
        if len(group) > 1 or rows > MAX_EVENTS or workspace.engine.is_distributed:
            yield from map(StepResult, write_group(workspace, spec, group, log.collect_user_history, None, (), **arguments))
            continue
        ds, inputs = group[0]
        events = workspace.tables.read(inputs["behavior"], [col.USER_ID, col.ITEM_ID, col.EVENT, col.EVENT_TIME_MS, *extra])
        yield StepResult(workspace.write_table(spec, ds, log.list_user_history(events, **arguments), inputs.values()))


def user_all_feature(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Joins profile, statistics and preferences of each user."""
    states = ["user_activity", "pair_activity", "user_preferences"]
    spec = raw_feature_tables.USER_ALL_FEATURE
    return _join_days(workspace, days, "user_table", states, spec, col.USER_ID, all_features.join_user_features)


def item_all_feature(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Joins profile and statistics of each item."""
    spec = raw_feature_tables.ITEM_ALL_FEATURE
    return _join_days(
        workspace, days, "item_table", ["item_activity", "pair_activity"], spec, col.ITEM_ID, all_features.join_item_features
    )


def _join_days(
    workspace: Workspace,
    days: Sequence[str],
    profile: str,
    states: Sequence[str],
    spec: TableSpec,
    entity: str,
    expression: Callable[..., ibis.Table],
) -> Iterator[StepResult]:
    """Joins the profile and the states of each day, of several short days with one query."""
    plan = FeaturePlan.from_config(workspace.config)
    for group in _group_profiles(workspace, days, profile, states):
        first, last = group[0][1], group[-1][0]
        if len(group) == 1 or workspace.engine.is_distributed or has_own_day(first):
            for ds, inputs in group:
                target = Target(spec, ds, digests(inputs.values()), by_key=entity)
                yield StepResult(_join_day(workspace, target, entity, expression, profile, inputs, plan))
            continue
        is_same = all(inputs[profile].digest == first[profile].digest for _, inputs in group)
        together = read_together(group, fixed=[profile] if is_same else [])
        if is_same:
            together["days"] = pa.table({DAY: pa.array([ds for ds, _ in group]).cast(pa.date32())})
        targets = [Target(spec, ds, digests(inputs.values())) for ds, inputs in group]
        written = workspace.engine.write_days(targets, expression, together, {"ds": last, "plan": plan})
        yield from map(StepResult, written)


def _join_day(
    workspace: Workspace,
    target: Target,
    entity: str,
    expression: Callable[..., ibis.Table],
    profile: str,
    inputs: Inputs,
    plan: FeaturePlan,
) -> Manifest:
    """Joins the profile and the states of a day.

    In this process a query joins the statistics alone. Profiles, preferences and items of users are stored in the order of its rows,
    to which they are added as they are read: joining and sorting all columns takes three times as long.
    """
    engine, tables = workspace.engine, workspace.tables
    profiles = tables.read_ascending(inputs[profile], entity)
    if engine.is_distributed or not all(map(has_plain_type, profiles.schema)):
        return engine.write_query(target, expression, inputs, {"ds": target.ds, "plan": plan})
    schema = plain_schema(profiles.schema)
    states, pairs, counts = dict(inputs), None, None
    if entity == col.USER_ID:  # of items the pairs are in another order
        pairs = tables.read_ascending(
            states.pop("pair_activity"), entity, [entity, col.EVENT, LAST_DATE], as_dictionaries=[col.EVENT, LAST_DATE]
        )
        preferred = states.pop("user_preferences", None)
        if preferred is not None and plan.preference_columns:
            counts = tables.read_ascending(preferred, entity, as_dictionaries=[ATTRIBUTE, col.VALUE])

    def add_stored(batch: pa.RecordBatch) -> pa.RecordBatch:
        users, is_active = batch.column(entity), batch.column(DAYS_SINCE_LAST_EVENT).is_valid().to_numpy(False)
        last = users[-1].as_py() if len(users) else None
        added: dict[str, pa.Array] = {}
        index = IdIndex(users)
        if pairs is not None:
            parts = pairs.parts_through(last)
            added |= activity.count_items(parts, index, is_active, target.ds, plan.statistic_days, plan.funnel)
        if counts is not None:
            read = counts.read_through(last)
            added |= {
                preference(name): preferences.rank_preferences(read, index, is_active, name, plan.preference_top)
                for name in plan.preference_columns
            }
        return all_features.add_stored(batch, profiles.read_through(last).cast(schema), added, entity, plan)

    return engine.write_query(target, expression, states, {"ds": target.ds, "plan": plan, "is_narrow": True}, add_stored)


def _group_profiles(
    workspace: Workspace, days: Sequence[str], profile: str, states: Sequence[str]
) -> Iterator[list[tuple[str, Inputs]]]:
    """Yields groups of days; where a profile's files are shared by days, and so lie in no folder of a day, it is one of each group."""
    for group in group_days(workspace, days, {name: name for name in (profile, *states)}):
        if any(is_shared(file.path) for _, inputs in group for file in inputs[profile].files):
            yield from (list(part) for _, part in itertools.groupby(group, key=lambda day: day[1][profile].digest))
        else:
            yield group
