"""The projection is the measured cost times how many times more there is of what it follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets_tests.benchmarks.capacity import DRIVERS, Driver, Target, cores, held, project, render
from dssm_assets_tests.benchmarks.chain_steps import chain_steps
from dssm_assets_tests.benchmarks.daily_chain import ChainReport, StepCost
from dssm_assets_tests.benchmarks.world import World

PAGE = Path(__file__).parents[2] / "docs" / "capacity.md"
MEASURED = Path(__file__).parent / "measured"
TARGET = Target(events=1_000_000_000, users=100_000_000, items=10_000_000)
SMALL = ChainReport(
    world=World(rows=2_000_000, users=1_000, items=500, days=2),
    window=1,
    limit_mib=None,
    steps=(
        StepCost("sample", 3, 2_000_000, 30_000_000, 6.0, 0.0, 0.0),
        StepCost("user_features_fg", 3, 3_000, 3_000_000, 3.0, 0.0, 0.0),
        StepCost("item_vectors", 1, 500, 1_000_000, 2.0, 0.0, 0.0),
        StepCost("hit_counts", 1, 10, 1_000, 4.0, 0.0, 0.0),
        StepCost("step_config", 1, 2, 1_000, 0.5, 0.0, 0.0),
    ),
)


def test_each_step_grows_with_its_driver_and_a_daily_step_makes_one_day() -> None:
    # 1,000,000 events in the window: ten times the events, five times the users, four times the items.
    found = {one.name: one for one in project(SMALL, Target(events=10_000_000, users=5_000, items=2_000))}
    assert found["sample"].cpu_s_per_million == pytest.approx(6.0)
    assert found["sample"].cpu_hours == pytest.approx(6.0 * 10 / 3 / 3600)
    assert found["sample"].gbytes == pytest.approx(0.030 * 10 / 3)
    assert found["user_features_fg"].cpu_hours == pytest.approx(3.0 * 5 / 3 / 3600)
    assert found["item_vectors"].cpu_hours == pytest.approx(2.0 * 4 / 3600)
    assert found["hit_counts"].cpu_hours == pytest.approx(4.0 * 5 * 4 / 3600)
    assert found["step_config"].cpu_hours == pytest.approx(0.5 / 3600)


def test_cores_are_those_that_end_in_time() -> None:
    # 28 hours in 4 hours at 70%: 10 cores.
    assert [cores(28.0), cores(28.1)] == [10, 11]


def test_what_is_held_by_hand() -> None:
    sizes = {one.name.split(":")[0]: one.gbytes for one in held(TARGET, dims=64, embedding_dim=32, history=50)}
    assert sizes["item vectors"] == pytest.approx(2.56)
    assert sizes["index HNSW"] == pytest.approx(5.56)
    assert sizes["user vectors, stored"] == pytest.approx(26.4)
    assert sizes["item embedding with its optimiser"] == pytest.approx(1.32)
    assert sizes["histories, mapped from disk"] == pytest.approx(60.0)


def test_every_driver_names_a_step_of_the_graph() -> None:
    assert set(DRIVERS) <= {step.name for step in chain_steps()}
    assert DRIVERS.get("train_samples", Driver.EVENTS) is Driver.EVENTS


def test_the_page_shows_what_the_command_computes() -> None:
    report = ChainReport.from_json((MEASURED / "chain_10m.json").read_text(encoding="utf-8"))
    assert render(report, TARGET) in PAGE.read_text(encoding="utf-8")
