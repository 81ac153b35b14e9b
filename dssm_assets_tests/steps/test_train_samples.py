"""What the towers read of every sample, and what is counted of each day, against the slow way: features joined to each sample by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.features_raw.raw_feature_tables import USER_ALL_FEATURE
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide
from dssm_assets.core.samples.negatives import distribution_of, weights_of
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.steps.feature_config import open_bucketizer
from dssm_assets.steps.training import train_samples
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace, window_days
from dssm_assets_tests import worlds
from dssm_assets_tests.core.models.features import read_rows
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers
from dssm_assets_tests.steps.train_files import TRAIN_FILES, open_train_data, train_tables
from dssm_assets_tests.wide_samples import read_wide_sample
from dssm_assets_tests.worlds import EVALUATION_DAY, WINDOW_DAYS

DAY, WINDOW = EVALUATION_DAY, window_days(EVALUATION_DAY, WINDOW_DAYS)
ROWS = len(worlds.users()) * worlds.BUYS * WINDOW_DAYS
SEVERAL = [
    {"feature_name": "preferences", "feature_type": "id_feature", "expression": "user:category_preference"},
    {"feature_name": "stocks", "feature_type": "combo_feature", "expression": ["item:category", "item:stock"]},
    {"feature_name": "when", "feature_type": "combo_feature", "expression": ["context:hour", "context:weekday"]},
]
ENCODED = ("item_features_fg", "user_features_fg", "user_history_fg", "sample_fg", "positive_sample")
COUNTS = {"numeric_value_counts": count_numbers, "category_value_counts": count_categories}
WINDOWED = ("training_window", "feature_binning", "feature_counts", "feature_config", "step_config", "training_config")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def workspace(world: worlds.BuiltWorld, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Returns the tiny world with three more features, each of several values; as of the third day of the window a third of users is unknown."""
    changes = {"features": {"fg": {"features": [*worlds.FG["features"], *SEVERAL]}}}
    loaded = world.copy(tmp_path_factory.mktemp("several") / "world", changes)
    made = open_workspace(loaded)
    known = made.need(USER_ALL_FEATURE.name, WINDOW[2])
    table = made.tables.read(known)
    some = table.filter(pa.array(np.arange(table.num_rows) % 3 > 0))
    made.tables.write(USER_ALL_FEATURE, known.ds, some, inputs=known.inputs)
    worlds.run_steps(loaded, [*ENCODED, *COUNTS], worlds.DAYS)
    worlds.run_steps(loaded, [*WINDOWED, "negative_items", "train_samples"], [DAY])
    return made


@pytest.mark.parametrize("asset", COUNTS)
def test_counts_equal_those_of_the_wide_samples(workspace: Workspace, asset: str) -> None:
    for ds in WINDOW:
        expected = COUNTS[asset](read_wide_sample(workspace, "positive_sample", ds), workspace.fg_spec.features)
        assert workspace.tables.read(workspace.need(asset, ds)).equals(expected), ds


def rows_by_id(workspace: Workspace, side: str, ds: str) -> dict[Any, Row]:
    table = workspace.tables.read(workspace.need(f"{side}_features_fg", ds))
    return {row[f"{side}_id"]: row for row in table.to_pylist()}


def joined_rows(workspace: Workspace) -> list[Row]:
    """Returns every positive of the window with the encoded features of its request, and of its user and item as of the previous day."""
    found = []
    for ds in WINDOW:
        users, items = (rows_by_id(workspace, side, day_before(ds)) for side in ("user", "item"))
        for row in workspace.tables.read(workspace.need("positive_sample", ds)).to_pylist():
            found.append({**row, **users.get(row["user_id"], {}), **items.get(row["item_id"], {})})
    return found


def types(workspace: Workspace) -> dict[str, pa.DataType]:
    stored = [workspace.need(f"{name}_features_fg", day_before(WINDOW[0])) for name in ("user", "item")]
    stored.append(workspace.need("positive_sample", WINDOW[0]))
    return {field.name: field.type for manifest in stored for field in workspace.tables.open(manifest).schema}


def expected_rows(
    joined: Sequence[Row], features: Sequence[TowerFeature], bucketizer: Bucketizer, kinds: dict[str, pa.DataType]
) -> list[Row]:
    """Returns the embedding index of every feature, row by row; of several values those that are not missing."""
    found: list[Row] = [{} for _ in joined]
    for feature in features:
        for row, at in zip(joined, found, strict=True):
            value = pa.array([row.get(feature.name)], kinds[feature.name])
            (index,) = bucketizer.bucketize(feature.name, value).to_pylist()
            at[feature.name] = [one for one in index if one] if feature.is_multi else index
    return found


def test_towers_read_the_features_of_the_previous_day(workspace: Workspace) -> None:
    data, (bucketizer, _), kinds = open_train_data(workspace, DAY), open_bucketizer(workspace, DAY), types(workspace)
    joined, order = joined_rows(workspace), np.random.default_rng(0).permutation(data.num_samples)
    assert len(joined) == data.num_samples == ROWS
    shuffled = [joined[place] for place in order.tolist()]
    users, items = data.spec.features_of(TowerSide.USER, TowerSide.CONTEXT), data.spec.features_of(TowerSide.ITEM)
    read = read_rows(data.read_user_side(order, data.read_keys(order)), users)
    assert read == expected_rows(shuffled, users, bucketizer, kinds)
    assert read_rows(data.sample_items.read(data.read_key("item_row", order)), items) == expected_rows(
        shuffled, items, bucketizer, kinds
    )
    # The world is not so poor that anything would do: some users are unknown, most are not, rows differ.
    unknown = [row for row in shuffled if row["user_feature_date"] is None]
    assert 0 < len(unknown) < ROWS / 4
    assert len({str(row) for row in read}) > ROWS / 4


def test_weights_of_items_follow_the_stored_distribution(workspace: Workspace) -> None:
    """So weights as of an earlier day can be made of the samples before it."""
    items = train_tables(workspace, DAY)["items"]
    distribution, data = distribution_of(items.schema), open_train_data(workspace, DAY)
    assert distribution == workspace.config.negative_items
    assert np.array_equal(weights_of(data.item_counts(data.num_days), distribution), items["weight"].to_numpy())
    assert 0 < data.item_counts(1).sum() < data.num_samples


def test_a_feature_row_is_stored_once_per_table(workspace: Workspace) -> None:
    tables = train_tables(workspace, DAY)
    for side in ("user", "item"):
        used = set()
        for ds in WINDOW:
            content = workspace.need(f"{side}_features_fg", day_before(ds)).digest
            rows = workspace.tables.read(workspace.need("positive_sample", ds), [f"{side}_row"]).column(0).drop_null()
            used |= {(content, row) for row in rows.to_pylist()}
        table = tables[f"{side}_rows"]
        assert table.num_rows == 1 + len(used)


def test_files_describe_their_columns_and_rows(workspace: Workspace) -> None:
    stored = workspace.need("train_samples", DAY)
    assert [file.name for file in stored.files] == [f"{name}.arrow" for name in TRAIN_FILES]
    assert stored.rows == ROWS
    described = {column.name: column for column in stored.columns}
    for name, table in train_tables(workspace, DAY).items():
        for field in table.schema:
            column = described.pop(f"{name}.arrow: {field.name}")
            assert (column.type, len(column.description) > 10) == (str(field.type), True)
    assert not described
    previous_days = [day_before(ds) for ds in WINDOW]
    assert {f"{side}_features_fg/{ds}" for side in ("user", "item") for ds in previous_days} <= set(stored.inputs)


def test_train_samples_are_deterministic(workspace: Workspace) -> None:
    before = workspace.need("train_samples", DAY)
    (result,) = train_samples(workspace, [DAY])
    assert result.manifest == before
    assert result.facts["samples"] == ROWS
    assert result.facts["samples_outside_corpus"] == 0
