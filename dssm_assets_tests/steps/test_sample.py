"""Encoded features, samples with their feature rows, and the training window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dssm_assets.core import columns as col
from dssm_assets.core.features.fg_tables import USER_FEATURES_FG
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features_raw import plan as names
from dssm_assets.core.features_raw.raw_feature_tables import ITEM_ALL_FEATURE
from dssm_assets.core.samples.sample_tables import SAMPLE, SAMPLE_FG
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps import read_once, sample
from dssm_assets.steps.sample import FEATURE_TABLES, WINDOW_TABLES, training_window
from dssm_assets.steps.workspace import (
    StepResult,
    Workspace,
    day_before,
    days_between,
    open_workspace,
    start_of_day_ms,
    window_days,
)
from dssm_assets.storage import layout
from dssm_assets.storage import tables as table_store
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import BuiltWorld

DS = worlds.DAYS[3]
ROW_GROUP = 7


def with_row_groups(world: BuiltWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A world in which a day's samples are in several row groups."""
    made = open_workspace(world.copy(tmp_path / "copy"))
    monkeypatch.setattr(table_store, "ROW_GROUP_ROWS", ROW_GROUP)
    monkeypatch.setattr(read_once, "_INSTANCES", {})
    monkeypatch.setattr(sample, "GOLDEN_SPACING", 1)
    for spec in (SAMPLE, SAMPLE_FG):
        before = made.need(spec.name, DS)
        made.tables.write(spec, DS, made.tables.read(before), inputs=before.inputs)
    return made


workspace = pytest.fixture(with_row_groups)


def test_positive_samples_are_the_samples_with_label_one(workspace: Workspace) -> None:
    (result,) = sample.positive_sample(workspace, [DS])
    placed = workspace.tables.read(workspace.need("sample_fg", DS))
    assert workspace.tables.read(result.manifest).equals(placed.filter(pc.equal(placed.column(col.LABEL), 1)))
    assert 0 < result.manifest.rows < placed.num_rows


def test_samples_that_leak_do_not_replace_an_existing_partition(workspace: Workspace) -> None:
    check_leaking_samples(workspace, workspace)


def check_leaking_samples(workspace: Workspace, engine: Workspace) -> None:
    """Makes samples leak, and checks that the step on the engine of another workspace replaces nothing."""
    previous = workspace.need(USER_FEATURES_FG.name, day_before(DS))
    table = workspace.tables.read(previous)
    # The features of three users are of the day itself, so their samples leak.
    dates = pa.array([DS if row < 3 else previous.ds for row in range(table.num_rows)])
    place = table.schema.get_field_index(col.FEATURE_DATE)
    workspace.tables.write(
        USER_FEATURES_FG, previous.ds, table.set_column(place, col.FEATURE_DATE, dates), inputs=previous.inputs
    )
    users = table.column(col.USER_ID).to_pylist()[:3]
    leaking = sum(user in users for user in workspace.tables.read(workspace.need("sample", DS)).column(col.USER_ID).to_pylist())
    assert leaking > 0

    def place_again() -> StepResult:
        (result,) = sample.sample_fg(engine, [DS])
        leak = result.checks[0]
        assert (leak.is_passed, leak.facts["leaking_rows"], leak.facts["newest_user_feature_date"]) == (False, leaking, DS)
        return result

    existing = workspace.need("sample_fg", DS)
    assert place_again().manifest == workspace.need("sample_fg", DS) == existing
    Path(layout.manifest_path(workspace.tables.partitions.root, "sample_fg", DS)).unlink()
    assert place_again().manifest == workspace.need("sample_fg", DS)
    assert workspace.need("sample_fg", DS).inputs[previous.key] != existing.inputs[previous.key]


DAY = worlds.DAYS[0]
ROWS = 23


@pytest.fixture
def item_workspace(tmp_path, monkeypatch):
    """A workspace with one day of 23 items, read in batches of 4, of which five are golden rows."""
    monkeypatch.setattr(sample, "GOLDEN_SPACING", 1)
    monkeypatch.setattr(table_store, "ROW_GROUP_ROWS", 4)
    made = open_workspace(worlds.write_config(tmp_path))
    items = pa.table(
        {
            col.ITEM_ID: [f"i{number:02d}" for number in range(ROWS)],
            col.FEATURE_DATE: [DAY] * ROWS,
            names.DAYS_SINCE_FIRST_EVENT: pa.nulls(ROWS, pa.float64()),
            names.DAYS_SINCE_LAST_EVENT: pa.nulls(ROWS, pa.float64()),
            "category": [None if number % 5 == 0 else f"c{number}" for number in range(ROWS)],
            "buy_count_3d": pa.array(range(ROWS), pa.int64()),
        }
    )
    made.tables.write(ITEM_ALL_FEATURE, DAY, items)
    return made


def skew_requests(monkeypatch, wrong):
    """Makes single requests return wrong features where `wrong` says so; returns the requests that were replayed."""
    requests: list[dict[str, Any]] = []
    encode_one = FeatureGenerator.encode_one

    def encode_wrongly(generator, request, side=None, **how):
        requests.append(dict(request))
        found = encode_one(generator, request, side, **how)
        return {name: -1 if wrong(request) else value for name, value in found.items()}

    monkeypatch.setattr(FeatureGenerator, "encode_one", encode_wrongly)
    return requests


def test_golden_rows_come_from_all_batches(item_workspace, monkeypatch):
    requests = skew_requests(monkeypatch, lambda request: False)
    (result,) = sample.item_features_fg(item_workspace, [DAY])
    # 22 / 4 = 5.5 rows from one to the next, half to even: 0, 6 (5.5), 11, 16 (16.5), 22.
    assert [request[col.ITEM_ID] for request in requests] == ["i00", "i06", "i11", "i16", "i22"]
    (check,) = result.checks
    assert (check.name, check.is_passed, check.facts["golden_rows"]) == ("fg_parity", True, 5)
    assert result.manifest.rows == ROWS


def test_parity_check_finds_a_skew_in_the_last_batch(item_workspace, monkeypatch):
    skew_requests(monkeypatch, lambda request: request[col.ITEM_ID] == "i22")
    ((check,),) = [result.checks for result in sample.item_features_fg(item_workspace, [DAY])]
    assert not check.is_passed
    assert check.facts["differing_features"] == ["category", "item", "item_buy_count_3d"]
    assert "row 22, item: " in check.description


def test_an_empty_table_has_no_golden_rows(item_workspace):
    source = item_workspace.need("item_all_feature", DAY)
    item_workspace.tables.write(ITEM_ALL_FEATURE, DAY, item_workspace.tables.read(source).slice(0, 0))
    (result,) = sample.item_features_fg(item_workspace, [DAY])
    assert (result.manifest.rows, result.checks[0].is_passed, result.checks[0].facts["golden_rows"]) == (0, True, 0)
    assert item_workspace.tables.open(result.manifest).schema.names == [
        col.ITEM_ID,
        col.FEATURE_DATE,
        "item",
        "category",
        "item_buy_count_3d",
    ]


def test_histories_are_replayed_whole(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "GOLDEN_SPACING", 1)
    loaded = world.copy(tmp_path / "copy")
    requests = skew_requests(monkeypatch, lambda request: False)
    (result,) = sample.user_history_fg(open_workspace(loaded), [DAY])
    (check,) = result.checks
    assert (check.name, check.is_passed, check.facts["golden_rows"]) == ("fg_parity", True, 5)
    # Every user buys three items a day.
    assert [len(request[col.ITEM_IDS]) for request in requests] == [worlds.BUYS] * 5
    skew_requests(monkeypatch, lambda request: True)
    ((check,),) = [result.checks for result in sample.user_history_fg(open_workspace(loaded), [DAY])]
    assert check.facts["differing_features"] == ["history__category", "history__item"]


def test_context_features_of_samples_are_replayed(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "copy")
    skew_requests(monkeypatch, lambda request: False)
    ds = worlds.DAYS[1]
    (result,) = sample.sample_fg(open_workspace(loaded), [ds])
    leak, parity = result.checks
    assert (leak.name, leak.is_passed) == ("no_leak", True)
    assert (parity.name, parity.is_passed, parity.facts["golden_rows"]) == ("fg_parity", True, 1)
    skew_requests(monkeypatch, lambda request: True)
    (result,) = sample.sample_fg(open_workspace(loaded), [ds])
    assert result.checks[1].facts["differing_features"] == ["request_hour"]
    assert not result.checks[1].is_passed


def test_samples_without_context_features_have_no_golden_rows(world, tmp_path):
    features = [feature for feature in worlds.FG["features"] if feature.get("feature_name") != "request_hour"]
    loaded = world.copy(tmp_path / "copy", {"features": {"fg": {"features": features}}})
    (result,) = sample.sample_fg(open_workspace(loaded), [worlds.DAYS[1]])
    assert result.checks[1].is_passed
    assert result.checks[1].facts == {"golden_rows": 0, "differing_features": []}


WINDOW = days_between("2024-01-06", "2024-01-08")
WINDOW_EVALUATION_DAY = "2024-01-09"
PREVIOUS_DAY = "2024-01-05"
"""The samples of the first day point into its features."""


@pytest.fixture
def windowed(tmp_path):
    """A window of three days, every table complete: day n of the window has n + 1 rows."""
    windowed = open_workspace(worlds.write_config(tmp_path, {"window": {"days": 3}}))
    for table in WINDOW_TABLES:
        for number, ds in enumerate(WINDOW):
            put(windowed, table, ds, number + 1)
    for table in FEATURE_TABLES:
        for ds in [PREVIOUS_DAY, *WINDOW]:
            put(windowed, table, ds, 9)
    return windowed


def put(windowed, table, ds, rows):
    windowed.tables.write(TableSpec(table, "any", (), ()), ds, pa.table({"x": pa.array(range(rows))}))


def run(windowed, ds=WINDOW_EVALUATION_DAY):
    (result,) = training_window(windowed, [ds])
    return result


def test_a_complete_window_passes_and_lists_rows_and_digests(windowed):
    result = run(windowed)
    (check,) = result.checks
    assert (check.name, check.is_passed) == ("window_complete", True)
    assert check.description == "all 3 days from 2024-01-06 to 2024-01-08 are materialized"
    rows = windowed.tables.read(result.manifest).to_pylist()
    assert len(rows) == 4 * 3 + 2 * 4
    found = {(row["table"], row["day"]): (row["rows"], row["digest"]) for row in rows}
    assert found["positive_sample", "2024-01-07"] == (2, windowed.need("positive_sample", "2024-01-07").digest)
    assert found["user_features_fg", "2024-01-08"] == (9, windowed.need("user_features_fg", "2024-01-08").digest)
    assert set(result.manifest.inputs) == {f"{table}/{day}" for table, day in found}


def test_window_days_cross_months_and_leap_days():
    assert window_days("2024-03-01", 2) == ["2024-02-28", "2024-02-29"]
    assert days_between("2024-01-02", "2024-01-01") == []


@pytest.mark.parametrize(
    ("ds", "timezone", "hours_after_utc"),
    [("2024-01-02", "UTC", 0), ("2024-01-02", "Asia/Shanghai", -8), ("2024-07-02", "America/New_York", 4)],
)
def test_a_day_begins_at_local_midnight(ds, timezone, hours_after_utc):
    utc = {"2024-01-02": 1_704_153_600_000, "2024-07-02": 1_719_878_400_000}
    assert start_of_day_ms(ds, timezone) == utc[ds] + hours_after_utc * 3_600_000
