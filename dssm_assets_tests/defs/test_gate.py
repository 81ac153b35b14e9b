"""A failing gate in real Dagster runs: it keeps what stands behind total_hit_rate from being made, and nothing else."""

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.evaluation import hit_rate_gate
from dssm_assets.steps.workspace import StepResult, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

SHIPPED, BESIDE = "serving_bundle", "beside"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def made(workspace, days):
    for ds in days:
        yield StepResult(workspace.need("ground_truth", ds))


def run(loaded):
    """Runs total_hit_rate with serving_bundle behind it and one asset beside it; returns the run's result."""
    rows = [row for row in all_rows() if row.name in ("total_hit_rate", SHIPPED)]
    rows += [
        AssetRow(name=BESIDE, group="serving", step=made, description="", deps=("hit_rate_detail",), is_windowed=True),
    ]
    assets = [build_asset(row, Scene(loaded), Observer()) for row in rows]
    instance = dg.DagsterInstance.ephemeral()
    return dg.materialize(assets, partition_key=EVALUATION_DAY, instance=instance, raise_on_error=False)


def materialized(result):
    return sorted(event.asset_key.to_user_string() for event in result.get_asset_materialization_events())


def gate_check(result):
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "hit_rate_gate"]
    return check


def test_a_passing_gate_holds_nothing_back(world, tmp_path):
    result = run(world.copy(tmp_path / "passing"))
    assert result.success
    assert materialized(result) == [BESIDE, SHIPPED, "total_hit_rate"]
    check = gate_check(result)
    assert check.passed
    assert check.description == (
        f"{EVALUATION_DAY}: warm hit_rate@10 1.0000 [1.0000, 1.0000]; gain over popularity +0.3333 "
        f"[{check.metadata['gain_ci_low'].value:+.4f}, {check.metadata['gain_ci_high'].value:+.4f}] is not clearly below +0; "
        "no earlier day with hit_rate@10 to compare with"
    )


def test_a_failing_gate_holds_back_what_is_behind_it_and_nothing_else(world, tmp_path):
    # The model leads popularity by a third; nine tenths are asked for.
    loaded = world.copy(tmp_path / "failing", {"gate": {"baseline_margin": 0.9, "baselines": ["popularity"]}})
    fs = open_workspace(loaded).tables.partitions
    fs.fs.rm(f"{fs.root}/total_hit_rate", recursive=True)
    result = run(loaded)
    assert not result.success
    assert materialized(result) == [BESIDE, "total_hit_rate"]
    assert open_workspace(loaded).need("total_hit_rate", EVALUATION_DAY).rows
    started = {event.step_key for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_START}
    assert started == {BESIDE, "total_hit_rate"}
    failed = [event.step_key for event in result.all_events if event.is_step_failure]
    assert failed == ["total_hit_rate"]
    check = gate_check(result)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "is below +0.9" in check.description


def test_a_gate_that_does_not_block_says_so_and_holds_nothing_back(world, tmp_path):
    changes = {"gate": {"baseline_margin": 0.9, "is_blocking": False}}
    result = run(world.copy(tmp_path / "warning", changes))
    assert materialized(result) == [BESIDE, SHIPPED, "total_hit_rate"]
    check = gate_check(result)
    assert "warm hit_rate@10" in check.description
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def verdict(loaded, **rates):
    """Returns the check where the days before, by number, had these warm hit rates."""
    workspace = open_workspace(loaded)
    manifest = workspace.need("total_hit_rate", EVALUATION_DAY)
    total = workspace.tables.read(manifest)
    from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE

    for name, rate in rates.items():
        column = pa.array([rate] * total.num_rows)
        earlier = total.set_column(total.column_names.index("hit_rate"), "hit_rate", column)
        workspace.tables.write(TOTAL_HIT_RATE, DAYS[int(name[1:])], earlier)
    counts = workspace.tables.read(workspace.need("hit_counts", EVALUATION_DAY))
    return hit_rate_gate(workspace, EVALUATION_DAY, counts, total)


def test_the_last_stored_days_before_are_the_measure(world, tmp_path):
    # The day itself, with a rate of 1 and an interval of no width, is not one of them.
    gate = {"last_partitions": 2, "max_drop_frac": 0.0}
    check = verdict(world.copy(tmp_path / "past", {"gate": gate}), d3=9.0, d6=1.0, d8=1.5)
    assert check.facts["days_before"] == [DAYS[6], DAYS[8]]
    assert check.facts["mean_before"] == pytest.approx(1.25)
    assert not check.is_passed
    assert verdict(world.copy(tmp_path / "lax", {"gate": {**gate, "max_drop_frac": 0.2}}), d6=1.0, d8=1.5).is_passed


def test_every_check_of_the_contract_exists_and_blocks_what_it_should():
    checks = {(row.name, check.name): check.is_blocking for row in all_rows() for check in row.checks}
    wanted = {
        ("training_window", "window_complete"): True,
        ("item_features_fg", "fg_parity"): False,
        ("user_features_fg", "fg_parity"): False,
        ("user_history_fg", "fg_parity"): False,
        ("sample_fg", "fg_parity"): False,
        ("sample_fg", "no_leak"): True,
        ("item_vectors", "structure"): True,
        ("user_vectors", "structure"): True,
        ("item_vectors", "vector_drift"): False,
        ("user_vectors", "vector_drift"): False,
        ("total_hit_rate", "beats_popularity"): False,
        ("total_hit_rate", "hit_rate_gate"): True,
        ("serving_bundle", "exported_towers"): True,
        ("serving_bundle", "index_recall"): True,
    }
    assert {key: checks.get(key) for key in wanted} == wanted
