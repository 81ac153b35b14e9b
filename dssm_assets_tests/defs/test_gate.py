"""The gate in real Dagster runs: a failing one blocks the downstream assets of total_hit_rate, and nothing else."""

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

DOWNSTREAM, INDEPENDENT = "serving_bundle", "independent"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def find_ground_truth(workspace, days):
    for ds in days:
        yield StepResult(workspace.need("ground_truth", ds))


def run(loaded):
    """Runs total_hit_rate, serving_bundle downstream of it, and an asset that is not; returns the run's result."""
    rows = [row for row in all_rows() if row.name in ("total_hit_rate", DOWNSTREAM)]
    rows += [
        AssetRow(
            name=INDEPENDENT,
            group="serving",
            step=find_ground_truth,
            description="",
            deps=("hit_rate_detail",),
            is_windowed=True,
        ),
    ]
    assets = [build_asset(row, Scene(loaded), Observer()) for row in rows]
    instance = dg.DagsterInstance.ephemeral()
    return dg.materialize(assets, partition_key=EVALUATION_DAY, instance=instance, raise_on_error=False)


def materialized(result):
    return sorted(event.asset_key.to_user_string() for event in result.get_asset_materialization_events())


def gate_check(result):
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "hit_rate_gate"]
    return check


def test_passing_gate_blocks_nothing(world, tmp_path):
    result = run(world.copy(tmp_path / "passing"))
    assert result.success
    assert materialized(result) == [INDEPENDENT, DOWNSTREAM, "total_hit_rate"]
    check = gate_check(result)
    assert check.passed
    assert check.description == (
        f"{EVALUATION_DAY}: warm hit_rate@10 1.0000 [1.0000, 1.0000]; gain over popularity +0.3333 "
        f"[{check.metadata['gain_ci_low'].value:+.4f}, {check.metadata['gain_ci_high'].value:+.4f}] is not clearly below +0; "
        "no earlier day with hit_rate@10 to compare with"
    )


def test_failing_gate_blocks_downstream_assets_only(world, tmp_path):
    # The model leads popularity by a third; the gate requires nine tenths.
    loaded = world.copy(tmp_path / "failing", {"gate": {"baseline_margin": 0.9, "baselines": ["popularity"]}})
    fs = open_workspace(loaded).tables.partitions
    fs.fs.rm(f"{fs.root}/total_hit_rate", recursive=True)
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
    assert "is below +0.9" in check.description


def test_gate_without_blocking_only_warns(world, tmp_path):
    changes = {"gate": {"baseline_margin": 0.9, "is_blocking": False}}
    result = run(world.copy(tmp_path / "warning", changes))
    assert materialized(result) == [INDEPENDENT, DOWNSTREAM, "total_hit_rate"]
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
