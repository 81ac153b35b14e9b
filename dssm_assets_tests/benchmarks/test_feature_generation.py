"""The benchmark of feature generation, tiny: both paths see the same samples and give equal buckets, every row is printed."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests.benchmarks import operator_rows, pandas_path
from dssm_assets_tests.benchmarks.feature_generation import Report, encoding_cpu_s, measure, peak_mib, render, total_cpu_s
from dssm_assets_tests.benchmarks.process_cost import measured, run_apart
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.benchmarks.world_features import feature_definitions, load_world

WORLD = World(rows=2_000, users=120, items=60, days=3)
STEPS = (
    "item_features_fg",
    "user_features_fg",
    "user_history_fg",
    "sample_fg",
    "positive_sample",
    "numeric_value_counts",
    "category_value_counts",
    "feature_binning",
    "feature_counts",
    "feature_config",
    "negative_items",
    "train_samples",
)


def _here(work: Any, /, **arguments: Any) -> Any:
    return work(**arguments)


@pytest.fixture(scope="module", params=[True, False], ids=["daily tables", "one table"])
def measured_world(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("benchmark")
    return folder, measure(WORLD, folder, batch_rows=300, is_daily=request.param, own_hash=True, run=_here)


def test_both_paths_have_all_samples(measured_world: tuple[Path, Report]) -> None:
    _, report = measured_world
    # 2000 rows over 3 days: 667, 667 and on the last one 666.
    assert {days: result["samples"] for days, result in report.ours.items()} == {1: 666, 3: 2000}
    assert {days: result["samples"] for days, result in report.pandas.items()} == {1: 666, 3: 2000}


def test_hashed_features_have_equal_buckets_in_both_paths(measured_world: tuple[Path, Report]) -> None:
    folder, _ = measured_world
    workspace = open_workspace(load_world(WORLD, folder, WORLD.days))
    stored = workspace.need("train_samples", WORLD.evaluation_day)
    ours, users, items = (
        workspace.artifacts.map_table(stored, f"{name}.arrow") for name in ("samples", "user_rows", "item_rows")
    )
    for rows, key in ((users, "user_row"), (items, "item_row")):
        for name, column in zip(rows.column_names, rows.take(ours.column(key)).columns, strict=True):
            ours = ours.append_column(name, column)
    theirs = pq.read_table(folder / f"pandas_{WORLD.days}.parquet")
    assert ours.column("event_time_ms").to_pylist() == theirs.column("event_time_ms").to_pylist()
    hashed = [item["feature_name"] for item in feature_definitions()["features"] if "hash_bucket_size" in item]
    # 2 user and 3 item categories of more than 1000 values, 5 combinations, 2 bags.
    assert len(hashed) == 12
    for name in hashed:
        assert ours.column(name).to_pylist() == theirs.column(name).to_pylist(), name
        assert len(set(map(str, ours.column(name).to_pylist()))) > 10, name


def test_every_step_operator_and_ratio_is_printed(measured_world: tuple[Path, Report]) -> None:
    _, report = measured_world
    text = render(report)
    lines = [line.split("  ")[0] for line in text.splitlines()]
    for name in STEPS:
        assert lines.count(name) == 2, name
    for name in (pandas_path.ENCODE, pandas_path.CUT):
        assert lines.count(name) == 2, name
    for name in [*OPERATORS, SEQUENCE_FEATURE]:
        assert lines.count(name) == 1, name
    for name in ("CPU of pandas / ours, whole path", "CPU of pandas / ours, encoding alone", "peak of ours / ours over 1 day"):
        assert lines.count(name) == 1, name


def test_report_explains_rows_and_outputs(measured_world: tuple[Path, Report]) -> None:
    _, report = measured_world
    text = render(report)
    assert "a row of our train_samples refers to tables of distinct user and item rows" in text
    rows = {cost["name"]: cost["rows"] for cost in report.ours[WORLD.days]["costs"]}
    # Users on 3 previous days, items on the evaluation day too: 120 and 60 rows each, or one table each for all days.
    assert (rows["user_features_fg"], rows["item_features_fg"]) == ((360, 240) if report.is_daily else (120, 60))
    (line,) = [line for line in text.splitlines() if line.startswith("kv_dot_product ")]
    assert line.split()[1] == "300"
    found = {row["feature_type"]: row["inputs"] for row in report.operators}
    # 300 of 100,000 ids and 8 pages; no more words than there are.
    assert found["combo_feature"].startswith("page (string, 8 distinct), word (string, ")
    assert found["expr_feature"] == "a (double, 300 distinct), number (double, 300 distinct)"


def test_distinct_values_by_hand() -> None:
    assert operator_rows.distinct_values(pa.array(["a", "b", "a"])) == 2
    assert operator_rows.distinct_values(pa.array([["a", "b"], [], ["b", "c"]])) == 3


def test_totals_add_up_the_steps() -> None:
    costs = [
        {"name": pandas_path.ENCODE, "cpu_s": 2.0, "peak_mib": 5.0},
        {"name": pandas_path.CUT, "cpu_s": 1.0, "peak_mib": 9.0},
        {"name": "write", "cpu_s": 0.5, "peak_mib": 7.0},
    ]
    assert total_cpu_s({"costs": costs}) == 3.5
    assert peak_mib({"costs": costs}) == 9.0
    assert encoding_cpu_s({"costs": costs}) == 3.0
    assert encoding_cpu_s({"costs": costs, "encoding": [{"cpu_s": 0.25}, {"cpu_s": 0.5}]}) == 0.75


def test_every_feature_type_has_an_example() -> None:
    assert {*OPERATORS, SEQUENCE_FEATURE} <= set(operator_rows.EXAMPLES)


def test_measured_block_has_its_own_cost() -> None:
    with measured("heavy", rows=3) as heavy:
        held = pa.array(range(200_000)).to_numpy().repeat(150)
    del held
    with measured("light") as light:
        pass
    # 200,000 * 150 numbers of 8 bytes are 229 MiB.
    assert heavy.rows == 3
    assert heavy.peak_mib > 229
    assert heavy.peak_mib >= light.peak_mib > 0
    assert heavy.cpu_s > light.cpu_s >= 0
    assert heavy.wall_s > light.wall_s >= 0


def test_run_apart_returns_the_result_or_the_error() -> None:
    assert run_apart(statistics.mean, data=[1, 3]) == 2
    with pytest.raises(RuntimeError, match=r"(?s)statistics.mean failed:.*TypeError"):
        run_apart(statistics.mean, data=3)
