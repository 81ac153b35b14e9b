"""The projection multiplies the measured cost by the growth of the step's driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dssm_assets_tests.benchmarks.capacity import (
    DRIVERS,
    SPILLING,
    Driver,
    Target,
    ceilings,
    cores,
    footprints,
    project,
    render,
    render_ceilings,
    sampled_frac,
)
from dssm_assets_tests.benchmarks.chain_steps import chain_steps
from dssm_assets_tests.benchmarks.daily_chain import ChainReport, StepCost, compare
from dssm_assets_tests.benchmarks.daily_chain import render as render_chain
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


def test_projection_scales_each_step_by_its_driver_and_a_daily_step_to_one_day() -> None:
    # 1,000,000 events in the window: ten times the events, five times the users, four times the items.
    found = {one.name: one for one in project(SMALL, Target(events=10_000_000, users=5_000, items=2_000))}
    assert found["sample"].cpu_s_per_million == pytest.approx(6.0)
    assert found["sample"].cpu_hours == pytest.approx(6.0 * 10 / 3 / 3600)
    assert found["sample"].gbytes == pytest.approx(0.030 * 10 / 3)
    assert found["user_features_fg"].cpu_hours == pytest.approx(3.0 * 5 / 3 / 3600)
    assert found["item_vectors"].cpu_hours == pytest.approx(2.0 * 4 / 3600)
    assert found["hit_counts"].gbytes == pytest.approx(1_000 * 5 / 1e9)
    assert found["hit_counts"].cpu_hours == pytest.approx(4.0 * 5 * 4 / 3600)
    assert found["step_config"].cpu_hours == pytest.approx(0.5 / 3600)


def test_cores_are_rounded_up_to_finish_in_time() -> None:
    # 28 hours in 4 hours at 70%: 10 cores.
    assert [cores(28.0), cores(28.1)] == [10, 11]


def test_sampled_evaluation_costs_the_sampled_fraction_of_acting_users() -> None:
    with_truth = replace(SMALL, steps=(*SMALL.steps, StepCost("ground_truth", 1, 200, 1_000, 0.1, 0.0, 0.0)))
    # Of 1,000 users 200 act, so of 2,000,000 users 400,000: a sample of 100,000 is a quarter of them; of fewer users it is all.
    assert sampled_frac(with_truth, Target(1, 2_000_000, 1)) == pytest.approx(0.25)
    assert sampled_frac(with_truth, Target(1, 1_000, 1)) == 1.0
    # 4 s of hit_counts, 2,000 times the users and 8 times the items: 17.8 hours; the sample takes 4.4.
    assert (
        "against every item takes at most 18 more, that is 7 cores. Evaluating a sample of 100,000 users takes 4.4, "
        in render(with_truth, Target(10_000_000, 2_000_000, 4_000))
    )


def test_footprints_by_hand() -> None:
    sizes = {one.name.split(":")[0]: one.gbytes for one in footprints(TARGET, dims=64, embedding_dim=32, history=50)}
    assert sizes["item vectors"] == pytest.approx(2.56)
    assert sizes["index IVF"] == pytest.approx(2.8)
    assert sizes["index HNSW"] == pytest.approx(5.56)
    assert sizes["user vectors, stored"] == pytest.approx(26.4)
    assert sizes["item embedding with its optimiser"] == pytest.approx(1.32)
    assert sizes["histories, mapped from disk"] == pytest.approx(60.0)


def test_every_driver_names_a_step_of_the_graph() -> None:
    assert {*DRIVERS, *SPILLING} <= {step.name for step in chain_steps()}
    assert DRIVERS.get("train_samples", Driver.EVENTS) is Driver.EVENTS


def _report_with_memory(rows: int, **mib: float) -> ChainReport:
    steps = tuple(StepCost(name, 1, 1, 1, 1.0, most, most) for name, most in mib.items())
    return ChainReport(World(rows * 2, rows // 100_000, rows // 100_000, 2), 1, 2048, steps)


def test_ceiling_is_where_the_line_through_two_worlds_meets_the_limit() -> None:
    small = _report_with_memory(1_000_000, train_samples=200.0, ground_truth=100.0, pair_activity=100.0, sample_fg=300.0)
    large = _report_with_memory(11_000_000, train_samples=1_200.0, ground_truth=101.0, pair_activity=900.0, sample_fg=500.0)
    found = ceilings(small, large, 2_200.0, Target(events=102_400_000, users=20, items=20))
    # train_samples: 100 MiB per million, 1,000 MiB left: 10 million more. sample_fg: 20 per million, 1,700 left: 85 more.
    # pair_activity belongs to the engine, which spills; ground_truth hardly grows.
    assert [(one.name, one.mib_per_million, one.events) for one in found] == [
        ("train_samples", 100.0, 21e6),
        ("sample_fg", 20.0, 96e6),
    ]
    assert [one.target_gib for one in found] == [pytest.approx(10.0), pytest.approx(2.0)]


def test_capacity_page_shows_what_the_command_computes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    small, middle, large = (
        ChainReport.from_json((MEASURED / f"chain_{size}.json").read_text(encoding="utf-8")) for size in ("1m", "10m", "30m")
    )
    growth, limit = compare([small, middle, large]), large.limit_mib
    assert limit is not None
    for shown in (render_chain(middle), growth, render(middle, TARGET), render_ceilings(middle, large, limit, TARGET)):
        assert shown in page
