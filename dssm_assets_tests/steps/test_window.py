"""The training window: complete, with missing days, reaching before the calendar."""

import pyarrow as pa
import pytest

from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.window import FEATURE_TABLES, WINDOW_TABLES, training_window
from dssm_assets.steps.workspace import days_between, open_workspace, start_of_day_ms, window_days
from dssm_assets_tests import worlds

WINDOW = days_between("2024-01-06", "2024-01-08")
DAY = "2024-01-09"
EVE = "2024-01-05"
"""Whose features the samples of the first day point into."""


@pytest.fixture
def workspace(tmp_path):
    """A window of three days, every table whole: day n of the window has n + 1 rows."""
    workspace = open_workspace(worlds.write_config(tmp_path, {"window": {"days": 3}}))
    for table in WINDOW_TABLES:
        for number, ds in enumerate(WINDOW):
            put(workspace, table, ds, number + 1)
    for table in FEATURE_TABLES:
        for ds in [EVE, *WINDOW]:
            put(workspace, table, ds, 9)
    return workspace


def put(workspace, table, ds, rows):
    workspace.tables.write(TableSpec(table, "any", (), ()), ds, pa.table({"x": pa.array(range(rows))}))


def drop(workspace, table, ds):
    workspace.tables.partitions.fs.rm(f"{workspace.tables.partitions.root}/{table}/ds={ds}", recursive=True)


def run(workspace, ds=DAY):
    (result,) = training_window(workspace, [ds])
    return result


def test_a_whole_window_passes_and_lists_rows_and_digests(workspace):
    result = run(workspace)
    (check,) = result.checks
    assert (check.name, check.is_passed) == ("window_complete", True)
    assert check.description == "all 3 days from 2024-01-06 to 2024-01-08 are materialized"
    rows = workspace.tables.read(result.manifest).to_pylist()
    assert len(rows) == 4 * 3 + 2 * 4
    found = {(row["table"], row["day"]): (row["rows"], row["digest"]) for row in rows}
    assert found["positive_sample", "2024-01-07"] == (2, workspace.need("positive_sample", "2024-01-07").digest)
    assert found["user_features_fg", "2024-01-08"] == (9, workspace.need("user_features_fg", "2024-01-08").digest)
    assert set(result.manifest.inputs) == {f"{table}/{day}" for table, day in found}


def test_missing_days_are_named_per_table_with_the_command(workspace):
    drop(workspace, "positive_sample", "2024-01-07")
    drop(workspace, "item_features_fg", "2024-01-08")
    (check,) = run(workspace).checks
    assert not check.is_passed
    assert check.description == (
        "missing: item_features_fg: 2024-01-08; positive_sample: 2024-01-07. "
        "To fill them: dssm-assets materialize daily_tables --from 2024-01-07 --to 2024-01-08"
    )
    assert check.facts["missing_days"] == {"item_features_fg": ["2024-01-08"], "positive_sample": ["2024-01-07"]}


def test_days_before_the_calendar_cannot_be_filled_and_the_sentence_says_so(workspace):
    (check,) = run(workspace, "2024-01-03").checks
    assert not check.is_passed
    assert "1 days lie before calendar.start 2024-01-01: evaluate a later day or set window.days lower." in check.description
    assert "dssm-assets materialize daily_tables --from 2024-01-01 --to 2024-01-02" in check.description


def test_a_window_entirely_before_the_calendar_offers_no_command(workspace):
    (check,) = run(workspace, "2024-01-01").checks
    assert "3 days lie before calendar.start" in check.description
    assert "materialize" not in check.description


def test_the_evaluation_day_itself_is_not_part_of_the_window(workspace):
    put(workspace, "positive_sample", DAY, 100)
    rows = workspace.tables.read(run(workspace).manifest).to_pylist()
    assert {row["day"] for row in rows} == {EVE, *WINDOW}


def test_a_corrected_day_shows_in_the_windows_digest(workspace):
    before = run(workspace).manifest.digest
    assert run(workspace).manifest.digest == before
    put(workspace, "positive_sample", "2024-01-06", 50)
    assert run(workspace).manifest.digest != before


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
