"""The steps from tables to train_samples, on a generated world: `prepare` writes what they start from, `run` runs them.

Sources, log, samples and histories are written by their steps. The wide tables of users and items are a cheap substitute for
rolling statistics: a snapshot with counts that grow by one a day, or stay the same.

No tower of this world reads histories, so only the last day of user_history_fg is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core import columns as col
from dssm_assets.core.features_raw import plan as names
from dssm_assets.core.features_raw import raw_feature_tables
from dssm_assets.steps import feature_config, features_raw, sample, source, statistics, training
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, open_workspace, window_days
from dssm_assets.storage.manifest import Manifest
from dssm_assets_tests.benchmarks.world import World, write_world
from dssm_assets_tests.benchmarks.world_features import load_world

Step = Callable[[Workspace, Sequence[str]], Iterator[StepResult]]


def prepare(world: World, folder: Path, is_daily: bool) -> Workspace:
    """Writes the sources and all tables that the path starts from; of the second day's users every third is unknown.

    With is_daily users and items change every day; else all days share one table of each.
    """
    write_world(world, folder)
    workspace = open_workspace(load_world(world, folder, world.days))
    feature_days = [world.day_before_log, *world.log_days]
    _run(source.user_table, workspace, feature_days)
    _run(source.item_table, workspace, feature_days)
    for step in (source.behavior_table, features_raw.behavior, sample.sample, features_raw.user_history):
        _run(step, workspace, world.log_days)
    for side in ("user", "item"):
        first = _write_as_of(workspace, side, feature_days[0], 0, is_shared=not is_daily)
        for number, ds in enumerate(feature_days[1:], start=1):
            if is_daily:
                _write_as_of(workspace, side, ds, number)
            else:
                workspace.tables.partitions.publish_shared(first, ds)
    known = workspace.need(raw_feature_tables.USER_ALL_FEATURE.name, world.log_days[1])
    table = workspace.tables.read(known)
    some = table.filter(pa.array(np.arange(table.num_rows) % 3 > 0))
    workspace.tables.write(raw_feature_tables.USER_ALL_FEATURE, known.ds, some, inputs=known.inputs)
    return workspace


def run(world: World, workspace: Workspace) -> None:
    """Runs the steps of the window of the whole log."""
    ds = world.evaluation_day
    window = window_days(ds, world.days)
    eves = days_between(day_before(window[0]), day_before(window[-1]))
    daily: list[tuple[Step, list[str]]] = [
        (sample.item_features_fg, [*eves, window[-1]]),
        (sample.user_features_fg, eves),
        (sample.user_history_fg, window[-1:]),
        (sample.sample_fg, window),
        (sample.positive_sample, window),
        (statistics.numeric_value_counts, window),
        (statistics.category_value_counts, window),
    ]
    windowed: list[Step] = [
        statistics.feature_binning,
        statistics.feature_counts,
        feature_config.feature_config,
        training.negative_items,
        training.train_samples,
        feature_config.step_config,
        feature_config.training_config,
    ]
    for step, step_days in [*daily, *((step, [ds]) for step in windowed)]:
        _run(step, workspace, step_days)


def _run(step: Step, workspace: Workspace, days: Sequence[str]) -> None:
    for _ in step(workspace, days):
        pass


def _write_as_of(workspace: Workspace, side: str, ds: str, number: int, is_shared: bool = False) -> Manifest:
    table, spec = workspace.need(f"{side}_table", ds), getattr(raw_feature_tables, f"{side.upper()}_ALL_FEATURE")

    def as_of(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        counts = {name: pc.add(column, number) for name, column in columns.items() if _is_count(side, name, column)}
        unknown = pa.nulls(batch.num_rows, pa.float64())
        since = {names.DAYS_SINCE_FIRST_EVENT: unknown, names.DAYS_SINCE_LAST_EVENT: unknown}
        dates = pa.DictionaryArray.from_arrays(pa.array(np.zeros(batch.num_rows, np.int32)), pa.array([ds]))
        return pa.RecordBatch.from_pydict({col.FEATURE_DATE: dates.cast(pa.string()), **columns, **counts, **since})

    schema = as_of(pa.RecordBatch.from_pylist([], schema=workspace.tables.open(table).schema)).schema
    return workspace.tables.write(spec, ds, map(as_of, workspace.tables.batches(table)), schema=schema, is_shared=is_shared)


def _is_count(side: str, name: str, column: pa.Array) -> bool:
    return name.startswith(f"{side}_num_") and bool(pat.is_integer(column.type))
