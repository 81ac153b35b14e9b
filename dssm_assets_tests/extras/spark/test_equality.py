"""Every table that Spark makes has the rows that DuckDB makes, floats within 1e-6.

Large worlds are made on a real standalone cluster. The tiny one is made by a local master: its Python workers are processes, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dssm_assets.demo import prepare_home
from dssm_assets.steps.workspace import day_before, days_between
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.world import World, write_world
from dssm_assets_tests.benchmarks.world_features import load_world
from dssm_assets_tests.extras.spark.cluster import EXECUTORS, Cluster, requires_pyspark, settings_of
from dssm_assets_tests.extras.spark.comparison import assert_same_tables
from dssm_assets_tests.extras.spark.steps import SAMPLED, Plan, days_of_steps, land_sources, run_on_spark, run_steps
from dssm_assets_tests.programs import find_program

WORLD: Final = World(rows=500_000, users=150_000, items=20_000, days=9)
"""More users than a row group holds rows; the first day has left the window of 7 days on the last two."""
TEXT_COLUMNS: Final = ("cost", "grade", "is_new", "born")
"""Columns of other types that histories and preferences turn into text."""
DEMO_DAYS: Final = 34
"""The first days have left the window of 30 days on the last three."""

pytestmark = requires_pyspark


Case = tuple[LoadedConfig, LoadedConfig, Plan]
"""A world whose tables DuckDB makes, the same world for Spark, and the days of the steps."""


def compare(*cases: Case, executors: int = EXECUTORS) -> str:
    """Makes tables with DuckDB and with one Spark program and compares them; returns what the Spark program printed."""
    landed = [[land_sources(loaded, plan["behavior"]) for loaded in (here, there)] for here, there, plan in cases]
    printed = run_on_spark(*((there, plan) for _, there, plan in cases))
    assert f"executors {executors}" in printed
    for (ours, theirs), (_, _, plan) in zip(landed, cases, strict=True):
        run_steps(ours, plan)
        assert_same_tables(ours, theirs, plan)
        assert not list(Path(theirs.tables.partitions.root, "_staging").iterdir())
    return printed


@pytest.mark.heavy
def test_tables_of_the_tiny_world_and_its_states_are_equal(tmp_path: Path) -> None:
    """Samples have one day, and see the features of the day before. Of the states one is rolled and rebuilt; they share their code."""
    find_program("java")
    first, second, missing, fourth = days = worlds.DAYS[:4]
    plan = {name: [second] if name in SAMPLED or name == "sample" else [first] for name in days_of_steps(days)}
    plan |= {"behavior": days, "user_activity": [first, second, fourth], "user_history": [first, second]}
    here, there = worlds.write_world(tmp_path / "here"), worlds.write_world(tmp_path / "there", settings_of("local[1]"))
    printed = compare((here, there, plan), executors=0)
    assert f"{fourth}: rebuilt from {len(days)} days" in printed
    assert f"{second}: rebuilt" not in printed, f"rolled: the first day leaves the window of one; {missing} has no state"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rolled_and_rebuilt_states_and_unusual_types_are_equal(cluster: Cluster, tmp_path: Path) -> None:
    texts = ["category", *TEXT_COLUMNS]
    changes = {"raw_features": {"history_columns": texts, "preference_columns": texts}}
    here = worlds.write_world(tmp_path / "here", changes)
    there = worlds.write_world(tmp_path / "there", changes | cluster.settings())
    for name in ("here", "there"):
        write_unusual_items(tmp_path / name / "source" / "items.parquet")
    # The fourth day leaves the windows of one and of three days; the state of the fifth is missing, so the sixth's is rebuilt.
    compare((here, there, days_of_steps(worlds.DAYS[:6], left_out=worlds.DAYS[4:5])))


def write_unusual_items(path: Path) -> None:
    """Adds columns to the item table: types that Spark lacks, extreme floats, and columns that become text."""
    items = pq.read_table(path)
    count = items.num_rows
    weights = [None, 1e7, 1e-5, 1e16, 0.1, 1 / 3, 123456.75, float("nan"), -0.0, 5e-324]
    moments = pa.array(range(count), pa.int64())
    columns = {
        "weight": pa.array((weights * count)[:count], pa.float64()),
        "cost": pa.array(([0.5, 1 / 3, 123456.75, None] * count)[:count], pa.float64()),
        "grade": pa.array([0.25, 0.1, 3e6, None] * (count // 4), pa.float32()),
        "is_new": pa.array([True, None] * (count // 2)),
        "born": pa.array([dt.date(1969, 12, 31), dt.date(2024, 2, 29)] * (count // 2)),
        "listed": moments.cast(pa.timestamp("us")).cast(pa.timestamp("ns")),
        "seen": moments.cast(pa.timestamp("us")),
        "serial": pa.array([2**64 - 1 - number for number in range(count)], pa.uint64()),
        "shelf": pa.array([number % 256 for number in range(count)], pa.uint8()),
        "sizes": pa.array([[0.5, None], []] * (count // 2), pa.list_(pa.float32())),
    }
    for name, values in columns.items():
        items = items.append_column(name, values)
    pq.write_table(items, path)


def with_settings(path: Path, settings: Mapping[str, Any], home: Path) -> LoadedConfig:
    """Returns a configuration with some keys added, loaded from a new file next to it."""
    changed = path.with_name("spark.yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed.write_text(yaml.safe_dump({**config, **settings}), encoding="utf-8")
    return load_config(changed, home)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tables_of_the_generated_world_are_equal(cluster: Cluster, tmp_path: Path) -> None:
    write_world(WORLD, tmp_path)
    here = load_world(WORLD, tmp_path, window_days=WORLD.days)
    there = with_settings(tmp_path / f"window_{WORLD.days}.yaml", cluster.settings(), tmp_path / "there")
    days = [WORLD.day_before_log, *WORLD.log_days]
    print(compare((here, there, days_of_steps(days, left_out=days[2:-3]))))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tables_of_the_demo_are_equal(cluster: Cluster, tmp_path: Path) -> None:
    here, there = (prepare_home(tmp_path / name, dt.date(2018, 1, 1), is_shifted=False) for name in ("here", "there"))
    there = with_settings(tmp_path / "there" / "config.yaml", cluster.settings(), there.home)
    start = here.config.calendar.start.isoformat()
    days = days_between(start, day_before(start, 1 - DEMO_DAYS))
    print(compare((here, there, days_of_steps(days, left_out=days[2:-3]))))
