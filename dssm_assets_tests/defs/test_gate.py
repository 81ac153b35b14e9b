"""The gate in real Dagster runs: a failing one blocks the downstream assets of total_hit_rate, and nothing else."""

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.core.evaluation.labels import Spans
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.evaluation import hit_rate_gate, read_cells
from dssm_assets.steps.workspace import StepResult, open_workspace
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, LocalStep

DOWNSTREAM, INDEPENDENT = "serving_bundle", "independent"


def find_ground_truth(workspace, days):
    for ds in days:
        yield StepResult(workspace.need("ground_truth", ds))


def run(loaded):
    """Runs total_hit_rate, serving_bundle downstream of it, and an asset that is not; returns the run's result."""
    rows = [row for row in all_rows() if row.name in ("total_hit_rate", DOWNSTREAM)]
    rows += [
        AssetRow(
            step=LocalStep("tests", INDEPENDENT, find_ground_truth),
            group="serving",
            description="",
            deps=("hit_rate_detail",),
            is_windowed=True,
        ),
    ]
    scene = Scene(loaded)
    assets = [build_asset(row, scene, Observer()) for row in rows]
    instance = dg.DagsterInstance.ephemeral()
    return dg.materialize(assets, partition_key=EVALUATION_DAY, instance=instance, raise_on_error=False)


def materialized(result):
    return sorted(event.asset_key.to_user_string() for event in result.get_asset_materialization_events())


def gate_check(result):
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "hit_rate_gate"]
    return check


ANY_SIZE = {"min_pairs": 0}
"""The world's evaluation day has 36 items to find by 12 users."""


def test_passing_gate_blocks_nothing(world, tmp_path):
    result = run(world.copy(tmp_path / "passing", {"gate": {**ANY_SIZE, "scorer": "model", "baselines": ["popularity"]}}))
    assert result.success
    assert materialized(result) == [INDEPENDENT, DOWNSTREAM, "total_hit_rate"]
    check = gate_check(result)
    assert (check.passed, check.partition) == (True, EVALUATION_DAY)
    assert check.description == (
        f"{EVALUATION_DAY}: passed: two-tower model (1.0000) is ahead of the best baseline, popularity, 6 days (0.6667), by +0.3333 "
        f"[{check.metadata['gain_ci_low'].value:+.4f}, {check.metadata['gain_ci_high'].value:+.4f}] of hit_rate@10, 12 users; "
        "no earlier partitions with enough items to find to compare with"
    )


def test_a_small_day_is_not_enough_evidence_and_blocks_nothing(world, tmp_path):
    loaded = world.copy(tmp_path / "small", {"gate": {"baseline_margin": 0.9}})
    result = run(loaded)
    assert materialized(result) == [INDEPENDENT, DOWNSTREAM, "total_hit_rate"]
    check = gate_check(result)
    sentence = "not enough evidence: 36 items to find by 12 known users; a verdict needs 100 by 20"
    assert (check.passed, check.description) == (True, f"{EVALUATION_DAY}: {sentence}")
    stored = open_workspace(loaded).need("total_hit_rate", EVALUATION_DAY).facts["gate"]
    assert stored == {"passed": True, "sentence": sentence}


def test_failing_gate_blocks_downstream_assets_only(world, tmp_path):
    # The model leads popularity by a third; the gate requires nine tenths.
    loaded = world.copy(tmp_path / "failing", {"gate": {**ANY_SIZE, "baseline_margin": 0.9, "baselines": ["popularity"]}})
    open_workspace(loaded).tables.partitions.remove("total_hit_rate", EVALUATION_DAY)
    result = run(loaded)
    assert not result.success
    assert materialized(result) == [INDEPENDENT, "total_hit_rate"]
    assert open_workspace(loaded).need("total_hit_rate", EVALUATION_DAY).rows
    started = {event.step_key for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_START}
    assert started == {INDEPENDENT, "total_hit_rate"}
    failed = [event.step_key for event in result.all_events if event.is_step_failure]
    assert failed == ["total_hit_rate"]
    check = gate_check(result)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (
        f"{EVALUATION_DAY}: failed: merged list (1.0000) is ahead of the best baseline, popularity, 6 days (0.6667)"
        in check.description
    )
    assert "; at least +0.9 is required" in check.description


def test_gate_without_blocking_only_warns(world, tmp_path):
    changes = {"gate": {**ANY_SIZE, "baseline_margin": 0.9, "is_blocking": False}}
    result = run(world.copy(tmp_path / "warning", changes))
    assert materialized(result) == [INDEPENDENT, DOWNSTREAM, "total_hit_rate"]
    check = gate_check(result)
    assert "hit_rate@10" in check.description
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def verdict(loaded, **hits):
    """Returns the check where on the days before, by number, everything but popularity had these hits, and popularity 10."""
    workspace = open_workspace(loaded)
    total = workspace.tables.read(workspace.need("total_hit_rate", EVALUATION_DAY))
    for name, count in hits.items():
        earlier = pa.Table.from_pylist(
            [{**row, "hits": 10 if row["scorer"] == "popularity" else count} for row in total.to_pylist()], schema=total.schema
        )
        workspace.tables.write(TOTAL_HIT_RATE, DAYS[int(name[1:])], earlier)
    cells = read_cells(workspace, workspace.need("hit_counts", EVALUATION_DAY))
    return hit_rate_gate(workspace, EVALUATION_DAY, cells, total, Spans(window=6, history=9))


def test_the_last_stored_days_before_are_the_measure(world, tmp_path):
    # Today 36 hits are 1.5 times popularity's 24. On the last two days 60 and 40 hits were 5 times popularity's 20.
    gate = {**ANY_SIZE, "baselines": ["popularity"], "last_partitions": 2, "max_drop_frac": 0.0}
    check = verdict(world.copy(tmp_path / "past", {"gate": gate}), d3=90, d6=60, d8=40)
    assert check.facts["days_before"] == [DAYS[6], DAYS[8]]
    assert check.facts["ratio_before"] == pytest.approx(5)
    assert not check.is_passed
    assert verdict(world.copy(tmp_path / "lax", {"gate": {**gate, "max_drop_frac": 0.8}}), d6=60, d8=40).is_passed
