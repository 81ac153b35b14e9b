"""The parity check of feature generation: its golden rows are spread over the whole table, on every table that is encoded."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core import columns as col
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features_raw import feature_names as names
from dssm_assets.core.features_raw.specs import ITEM_ALL_FEATURE
from dssm_assets.steps import fg, sample
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage import table_store
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import built_world

DAY = worlds.DAYS[0]
ROWS = 23

world = pytest.fixture(scope="module")(built_world)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with one day of 23 items, read in batches of 4."""
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


def skewed_requests(monkeypatch, wrong):
    """Lets single requests give something else where `wrong` says so; returns the requests that were replayed."""
    asked: list[dict[str, Any]] = []
    encode_one = FeatureGenerator.encode_one

    def spoilt(generator, request, side=None, **how):
        asked.append(dict(request))
        found = encode_one(generator, request, side, **how)
        return {name: -1 if wrong(request) else value for name, value in found.items()}

    monkeypatch.setattr(FeatureGenerator, "encode_one", spoilt)
    return asked


def test_golden_rows_come_from_all_batches(workspace, monkeypatch):
    asked = skewed_requests(monkeypatch, lambda request: False)
    (result,) = fg.item_features_fg(workspace, [DAY])
    # 22 / 4 = 5.5 rows from one to the next, half to even: 0, 6 (5.5), 11, 16 (16.5), 22.
    assert [request[col.ITEM_ID] for request in asked] == ["i00", "i06", "i11", "i16", "i22"]
    (check,) = result.checks
    assert (check.name, check.is_passed, check.facts["golden_rows"]) == ("fg_parity", True, 5)
    assert result.manifest.rows == ROWS


def test_a_skew_in_the_last_batch_alone_is_found(workspace, monkeypatch):
    skewed_requests(monkeypatch, lambda request: request[col.ITEM_ID] == "i22")
    ((check,),) = [result.checks for result in fg.item_features_fg(workspace, [DAY])]
    assert not check.is_passed
    assert check.facts["differing_features"] == ["category", "item", "item_buy_count_3d"]
    assert "row 22, item: " in check.description


def test_an_empty_table_has_no_golden_rows(workspace):
    source = workspace.need("item_all_feature", DAY)
    workspace.tables.write(ITEM_ALL_FEATURE, DAY, workspace.tables.read(source).slice(0, 0))
    (result,) = fg.item_features_fg(workspace, [DAY])
    assert (result.manifest.rows, result.checks[0].is_passed, result.checks[0].facts["golden_rows"]) == (0, True, 0)
    assert workspace.tables.open(result.manifest).schema.names == [
        col.ITEM_ID,
        col.FEATURE_DATE,
        "item",
        "category",
        "item_buy_count_3d",
    ]


def test_histories_are_replayed_whole(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "copy")
    asked = skewed_requests(monkeypatch, lambda request: False)
    (result,) = fg.user_history_fg(open_workspace(loaded), [DAY])
    (check,) = result.checks
    assert (check.name, check.is_passed, check.facts["golden_rows"]) == ("fg_parity", True, 5)
    # Every user takes three items a day.
    assert [len(request[col.ITEM_IDS]) for request in asked] == [worlds.BUYS] * 5
    skewed_requests(monkeypatch, lambda request: True)
    ((check,),) = [result.checks for result in fg.user_history_fg(open_workspace(loaded), [DAY])]
    assert check.facts["differing_features"] == ["history__category", "history__item"]


def test_context_features_of_samples_are_replayed(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "copy")
    skewed_requests(monkeypatch, lambda request: False)
    ds = worlds.DAYS[1]
    (result,) = sample.sample_fg(open_workspace(loaded), [ds])
    leak, parity = result.checks
    assert (leak.name, leak.is_passed) == ("no_leak", True)
    assert (parity.name, parity.is_passed, parity.facts["golden_rows"]) == ("fg_parity", True, 5)
    skewed_requests(monkeypatch, lambda request: True)
    (result,) = sample.sample_fg(open_workspace(loaded), [ds])
    assert result.checks[1].facts["differing_features"] == ["request_hour"]
    assert not result.checks[1].is_passed


def test_samples_without_context_features_have_no_golden_rows(world, tmp_path):
    features = [feature for feature in worlds.FG["features"] if feature.get("feature_name") != "request_hour"]
    loaded = world.copy(tmp_path / "copy", {"features": {"fg": {"features": features}}})
    (result,) = sample.sample_fg(open_workspace(loaded), [worlds.DAYS[1]])
    assert result.checks[1].is_passed
    assert result.checks[1].facts == {"golden_rows": 0, "differing_features": []}
