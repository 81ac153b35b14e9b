"""A world small enough to compute by hand: its source tables, its configuration, and the runs that build it.

Two groups of users and two groups of items; ids are text. Users of group a buy items of group a only, users of group b items
of group b. Twelve days from 2024-01-01 in Asia/Shanghai; the last one is the evaluation day.

    user  a0..a7, b0..b3                      a7 has events, but no row in the user table
    item  a_00..a_09, b_00..b_09
    buy   every user, every day, 3 items      numbers (2n + 3d + j) mod 10 for j = 0, 1, 2 of user n on day d (from 0)
    click every user, every day, 1 to 3 items the first 1 + (n + d) mod 3 of those

Belongs here: parts of that world that several test modules need. Does not belong here: expectations.
"""

from __future__ import annotations

import copy
import datetime as dt
import fcntl
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_row import LazyStep
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.runs import run_days
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import Workspace, days_between, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests.undrawn import leave_out_charts

TIMEZONE = "Asia/Shanghai"
START, END = "2024-01-01", "2024-01-12"
DAYS = days_between(START, END)
EVALUATION_DAY = END
WINDOW_DAYS = 6
USERS = {"a": 8, "b": 4}
GROUP_SIZE = 10
BUYS = 3
NO_PROFILE = "a7"
DAILY = [row.name for row in all_rows() if not row.is_windowed]
WINDOWED = job_assets(all_rows(), TRAIN_AND_EVALUATE)
PUBLISHED = job_assets(all_rows(), PUBLISH)

_ITEM, _CATEGORY = {"embedding_name": "item"}, {"embedding_name": "category"}
FG: dict[str, Any] = {
    "features": [
        {"feature_name": "city", "feature_type": "id_feature", "expression": "user:city", "value_dim": 1},
        {"feature_name": "user_click_count_1d", "feature_type": "raw_feature", "expression": "user:click_count_1d"},
        {"feature_name": "user_buy_count_3d", "feature_type": "raw_feature", "expression": "user:buy_count_3d"},
        {
            "feature_name": "user_takes_a",
            "feature_type": "lookup_feature",
            "map": "user:category_preference",
            "key": "const:cat_a",
        },
        {"feature_name": "item", "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1},
        {"feature_name": "category", "feature_type": "id_feature", "expression": "item:category", "value_dim": 1},
        {"feature_name": "item_buy_count_3d", "feature_type": "raw_feature", "expression": "item:buy_count_3d"},
        {"feature_name": "request_hour", "feature_type": "id_feature", "expression": "context:hour", "value_dim": 1},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "history",
            "sequence_length": 20,
            "sequence_delim": ";",
            "features": [
                {"feature_name": "item", "feature_type": "id_feature", "expression": "user:item_ids", **_ITEM},
                {"feature_name": "category", "feature_type": "id_feature", "expression": "user:category", **_CATEGORY},
            ],
        },
    ]
}

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 7,
    "calendar": {"start": START, "end": END, "timezone": TIMEZONE},
    "tables": {
        "user": {"uri": "{data}/source/users.parquet"},
        "item": {"uri": "{data}/source/items.parquet"},
        "behavior": {
            "uri": "{data}/source/behavior.parquet",
            "layout": "time_column",
            "columns": {"event_time": "ts"},
            "value_columns": ["price"],
            "context_columns": ["page"],
        },
    },
    "events": {"funnel": ["click", "buy"], "positive": ["buy"]},
    "window": {"days": WINDOW_DAYS},
    "raw_features": {
        "statistic_days": [1, 3],
        "preference_columns": ["category"],
        "preference_days": 3,
        "history_columns": ["category"],
    },
    "features": {"fg": FG},
    "model": {"output_dim": 8, "hidden_units": [16], "num_sample": 16, "history_length": 20},
    "training": {"epochs": 10, "batch_size": 32, "num_threads": 1},
    "evaluation": {"k": [5, GROUP_SIZE], "bootstrap_samples": 100, "recent": [24, 48]},
}


def users() -> list[str]:
    return [f"{group}{number}" for group, count in USERS.items() for number in range(count)]


def bought(user: str, day: int) -> list[str]:
    """Returns the items that a user buys on a day (0 is the first), in order of time."""
    number = int(user[1:])
    return [f"{user[0]}_{(2 * number + 3 * day + j) % GROUP_SIZE:02d}" for j in range(BUYS)]


def clicked(user: str, day: int) -> list[str]:
    return bought(user, day)[: 1 + (int(user[1:]) + day) % 3]


def start_ms(day: int) -> int:
    """Returns the instant at which a day (0 is the first) begins, in unix milliseconds."""
    start = dt.datetime.fromisoformat(START).replace(tzinfo=ZoneInfo(TIMEZONE)) + dt.timedelta(days=day)
    return int(start.timestamp() * 1000)


def log_rows(days: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the log of some days: a click on an item, and its purchase half a second later."""
    rows = []
    for day in days:
        for place, user in enumerate(users()):
            for number, item in enumerate(bought(user, day)):
                ts = start_ms(day) + (place * 60 + number * 10) * 1000
                row = {"user_id": user, "item_id": item, "price": 1.5 + number, "page": "home"}
                if item in clicked(user, day):
                    rows.append({**row, "event": "click", "ts": ts})
                rows.append({**row, "event": "buy", "ts": ts + 500})
    return rows


def user_rows() -> list[dict[str, Any]]:
    """Returns the user table: every user but NO_PROFILE."""
    return [{"user_id": user, "city": f"city{int(user[1:]) % 2}"} for user in users() if user != NO_PROFILE]


def item_rows() -> list[dict[str, Any]]:
    return [
        {"item_id": f"{group}_{number:02d}", "category": f"cat_{group}", "stock": number}
        for group in USERS
        for number in range(GROUP_SIZE)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as one parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested mapping with some leaves replaced."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, dict) and inner else value
    return result


def write_config(folder: Path, changes: Mapping[str, Any] | None = None) -> LoadedConfig:
    """Writes the configuration with some changes; returns it as loaded, with the folder's `home` as home."""
    path = folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(merged(CONFIG, changes or {}), sort_keys=False), encoding="utf-8")
    return load_config(path, folder / "home")


def write_sources(folder: Path) -> None:
    """Writes the three source tables."""
    write_rows(folder / "source" / "users.parquet", user_rows())
    write_rows(folder / "source" / "items.parquet", item_rows())
    write_rows(folder / "source" / "behavior.parquet", log_rows(range(len(DAYS))))


def write_world(folder: Path, changes: Mapping[str, Any] | None = None) -> LoadedConfig:
    """Writes source tables and configuration; returns the configuration as loaded."""
    write_sources(folder)
    return write_config(folder, changes)


def materialize(
    loaded: LoadedConfig, names: Sequence[str], days: Sequence[str], instance: dg.DagsterInstance | None = None
) -> None:
    """Materializes daily assets for all days in one run; with windowed assets, in one run per day. They make nothing else."""
    defs = scene_definitions(Scene(loaded), Observer(), makes_upstream=False)
    at = instance or dg.DagsterInstance.ephemeral()
    if set(names) <= set(DAILY):
        run_days(defs, at, names, days)
        return
    for ds in days:
        run_days(defs, at, names, [ds])


def run_steps(loaded: LoadedConfig, names: Sequence[str], days: Sequence[str]) -> None:
    """Writes the partitions that `materialize` writes by the steps alone, without charts. Dagster's records take twice as long.

    Raises:
        AssertionError: a check failed.
    """
    workspace = open_workspace(loaded)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_charts(patch)
        _run_steps(workspace, names, days)


def _run_steps(workspace: Workspace, names: Sequence[str], days: Sequence[str]) -> None:
    for part in [days] if set(names) <= set(DAILY) else [[ds] for ds in days]:
        for row in all_rows():
            if row.name in names:
                blocking = {check.name for check in row.checks if check.is_blocking}
                found = [check for result in row.step(workspace, part) for check in result.checks if check.name in blocking]
                assert all(check.is_passed for check in found), (row.name, found)


def build_all(loaded: LoadedConfig) -> Workspace:
    """Makes everything up to the evaluation day by the steps alone; returns the workspace."""
    run_steps(loaded, DAILY, DAYS)
    run_steps(loaded, WINDOWED, [EVALUATION_DAY])
    return open_workspace(loaded)


@dataclass(frozen=True)
class BuiltWorld:
    """A world with every asset materialized, and the Dagster instance of the runs. Tests must not change it."""

    folder: Path
    loaded: LoadedConfig
    instance: dg.DagsterInstance

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.loaded)

    def copy(self, target: Path, changes: Mapping[str, Any] | None = None) -> LoadedConfig:
        """Returns the configuration, with some changes, of a copy that a test may change."""
        shutil.copytree(self.folder, target)
        return write_config(target, changes)


def built_once(tmp_path_factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Returns a folder of the session, also of several workers: the first one that needs it builds it. Tests change copies alone."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    is_built = folder.with_suffix(".built")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built.exists():
            build(folder)
            is_built.touch()
    return folder


def built_world(tmp_path_factory: pytest.TempPathFactory) -> BuiltWorld:
    """Returns the one built world of the session, also of several workers: the first one that needs it builds it."""
    return _open(built_once(tmp_path_factory, "tiny_world", _build))


def _build(folder: Path) -> None:
    loaded = write_world(folder)
    with dg.DagsterInstance.local_temp(_events_of(folder)) as instance:
        materialize(loaded, DAILY, DAYS, instance)
        materialize(loaded, WINDOWED, [EVALUATION_DAY], instance)


@functools.cache
def _open(folder: Path) -> BuiltWorld:
    return BuiltWorld(
        folder, load_config(folder / "config.yaml", folder / "home"), dg.DagsterInstance.local_temp(_events_of(folder))
    )


def _events_of(folder: Path) -> str:
    events = folder.with_suffix(".instance")
    events.mkdir(exist_ok=True)
    return str(events)


def changed(workspace: Workspace, section: str, **values: Any) -> Workspace:
    """Returns a workspace with other values in a section of the configuration, which is not checked again."""
    old = getattr(workspace.config, section)
    config = workspace.config.model_copy(update={section: old.model_copy(update=values)})
    return replace(workspace, loaded=replace(workspace.loaded, config=config))


def every_digest(workspace: Workspace) -> dict[str, str]:
    """Returns "asset/ds" -> digest of every partition of every asset."""
    stored = [workspace.need(row.name, ds) for row in all_rows() for ds in workspace.tables.partitions.days(row.name)]
    return {manifest.key: manifest.digest for manifest in stored}


class Recorder(Observer):
    """Keeps what runs report."""

    def __init__(self):
        self.lines, self.partitions, self.skipped = [], [], []

    def on_log(self, text):
        self.lines.append(text)

    def on_partition(self, name, ds):
        self.partitions.append((name, ds))

    def on_skipped(self, ds, reason):
        self.skipped.append((ds, reason))


@dataclass(frozen=True)
class LocalStep(LazyStep):
    """Calls a function of a test in place of one of a module."""

    function: Callable[..., Any]

    def __call__(self, workspace, days):
        return self.function(workspace, days)
