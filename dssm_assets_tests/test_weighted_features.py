"""Weighted features of all three sides through the whole graph, in the tiny world (`worlds.py`) with four more features.

stocks     user     how often each item number was bought in the five days before, "number:count"
interests  user     of user n "music:<1 + n>", "chess:2"; missing for a7
tags       item     of item n "new:<1 + n>", "old:3"
pages      context  of the j-th purchase of a day "home:<1 + j>", "sale:2"
"""

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.train_files import TRAIN_FILES, train_tables
from dssm_assets_tests.wide_samples import read_wide_sample
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

PREVIOUS_DAY = DAYS[-2]
INPUTS = {
    "stocks": "user:stock_preference",
    "interests": "user:interests",
    "tags": "item:tags",
    "pages": "context:page",
}
WEIGHTED = [
    {"feature_name": name, "feature_type": "id_feature", "expression": expression, "weighted": True}
    for name, expression in INPUTS.items()
]
CHANGES = {
    "raw_features": {"preference_columns": ["category", "stock"], "preference_days": 5},
    "features": {"fg": {"features": [*worlds.FG["features"], *WEIGHTED]}},
}
WEIGHTS = pa.list_(pa.float32())


def entries(**weights):
    return "\x1d".join(f"{name}:{weight}" for name, weight in weights.items())


def user_rows(factor=1):
    return [{**row, "interests": entries(music=factor * (1 + int(row["user_id"][1:])), chess=2)} for row in worlds.user_rows()]


def item_rows(factor=1):
    return [{**row, "tags": entries(new=factor * (1 + row["stock"]), old=3)} for row in worlds.item_rows()]


def log_rows():
    rows = worlds.log_rows(range(len(DAYS)))
    return [{**row, "page": entries(home=round(row["price"] - 0.5), sale=2)} for row in rows]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighted")
    for name, rows in (("users", user_rows()), ("items", item_rows()), ("behavior", log_rows())):
        worlds.write_rows(folder / "source" / f"{name}.parquet", rows)
    loaded = worlds.write_config(folder, CHANGES)
    worlds.build_all(loaded)
    return worlds.BuiltWorld(folder, loaded, None)


@pytest.fixture(scope="module")
def workspace(world):
    return world.workspace


def table(workspace, asset, ds=EVALUATION_DAY):
    return workspace.tables.read(workspace.need(asset, ds))


def test_weights_follow_their_features_to_the_samples(workspace):
    # b1 on day 7: the five days before are 2 .. 6, on each it bought numbers (2 + 3d + j) mod 10: 8 9 0, 1 2 3, 4 5 6, 7 8 9,
    # 0 1 2. So 0, 1, 2, 8 and 9 twice, the others once. Its purchases of day 7 are 3, 4, 5 in this order (worlds.py).
    rows = [row for row in read_wide_sample(workspace, "positive_sample", DAYS[7]).to_pylist() if row["user_id"] == "b1"]
    assert [row["item_id"] for row in rows] == ["b_03", "b_04", "b_05"]
    assert [row["stocks__weights"] for row in rows] == [[2.0] * 5 + [1.0] * 5] * 3
    assert [row["interests__weights"] for row in rows] == [[2.0, 2.0]] * 3
    assert [row["tags__weights"] for row in rows] == [[4.0, 3.0], [5.0, 3.0], [6.0, 3.0]]
    assert [row["pages__weights"] for row in rows] == [[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]]
    without_profile = [
        row for row in read_wide_sample(workspace, "sample_fg", DAYS[7]).to_pylist() if row["user_id"] == worlds.NO_PROFILE
    ]
    assert {len(row["interests__weights"]) for row in without_profile} == {0}


def test_training_rows_have_a_weight_per_index(workspace):
    tables = train_tables(workspace, EVALUATION_DAY)
    samples, items, users, sample_items = (tables[name] for name in ("samples", "items", "user_rows", "item_rows"))
    places = [(samples, ["pages"]), (users, ["stocks", "interests"]), (sample_items, ["tags"]), (items, ["tags"])]
    assert sorted(name for _, names in places[:3] for name in names) == sorted(INPUTS)
    for found, names in places:
        assert {name for name in found.column_names if name.endswith("__weights")} == {f"{name}__weights" for name in names}
        for name in names:
            indices, weights = found.column(name).to_pylist(), found.column(f"{name}__weights")
            assert weights.type == WEIGHTS
            assert [len(row) for row in weights.to_pylist()] == [len(row) for row in indices]
    owners = tables["users"].column("user_id").to_pylist()
    of_users, of_items = users.to_pylist(), sample_items.to_pylist()
    whole = [of_users[row["user_row"]] | of_items[row["item_row"]] | row for row in samples.to_pylist()]
    first = {owners[row["user_index"]]: row for row in reversed(whole) if row["day"] == 2}
    # The window starts on day 5, so day 2 of it is day 7.
    assert first["b1"]["stocks__weights"] == [2.0] * 5 + [1.0] * 5
    assert [first["b1"][f"{name}__weights"] for name in ("interests", "tags", "pages")] == [[2, 2], [4, 3], [1, 2]]
    assert (first["a7"]["interests"], first["a7"]["interests__weights"]) == ([], [])
    # a_00 .. a_09, then b_00 .. b_09.
    assert items.column("tags__weights").to_pylist() == [[1.0 + n, 3.0] for n in range(10)] * 2


def test_user_vectors_depend_on_the_weights_of_the_previous_day(world, workspace, tmp_path):
    """Other weights on the previous day change the vector of every user with a profile. a7 has none and keeps its vector."""
    loaded = world.copy(tmp_path / "users", CHANGES)
    worlds.write_rows(tmp_path / "users" / "source" / "users.parquet", user_rows(factor=7))
    worlds.run_steps(loaded, ["user_table", "user_all_feature", "user_features_fg"], [PREVIOUS_DAY])
    worlds.run_steps(loaded, ["user_vectors"], [EVALUATION_DAY])
    changed = open_workspace(loaded)
    before, after = (table(at, "user_features_fg", PREVIOUS_DAY) for at in (workspace, changed))
    assert before.drop_columns(["interests__weights"]).equals(after.drop_columns(["interests__weights"]))
    stored = [table(at, "user_vectors").to_pylist() for at in (workspace, changed)]
    ours, theirs = ({row["user_id"]: row["user_tower_emb"] for row in rows} for rows in stored)
    moved = {user for user in ours if not np.allclose(ours[user], theirs[user], atol=1e-5)}
    assert moved == set(worlds.users()) - {worlds.NO_PROFILE}
    assert ours[worlds.NO_PROFILE] == theirs[worlds.NO_PROFILE]


def test_negatives_have_the_weights_of_the_previous_day(world, workspace, tmp_path):
    """Other weights of items on the previous day change no sample, only the corpus, and so the model and all vectors."""
    loaded = world.copy(tmp_path / "items", CHANGES)
    worlds.write_rows(tmp_path / "items" / "source" / "items.parquet", item_rows(factor=7))
    worlds.run_steps(loaded, ["item_table", "item_all_feature", "item_features_fg"], [PREVIOUS_DAY])
    names = ["negative_items", "train_samples", "dssm_model", "item_vectors", "user_vectors"]
    worlds.run_steps(loaded, names, [EVALUATION_DAY])
    changed = open_workspace(loaded)
    before, after = (train_tables(at, EVALUATION_DAY) for at in (workspace, changed))
    assert [name for name in TRAIN_FILES if not before[name].equals(after[name])] == ["items"]
    before, after = before["items"], after["items"]
    assert before.drop_columns(["tags__weights"]).equals(after.drop_columns(["tags__weights"]))
    assert after.column("tags__weights").to_pylist() == [[7.0 * (1 + n), 3.0] for n in range(10)] * 2
    for asset in ("dssm_model", "item_vectors", "user_vectors"):
        assert changed.need(asset, EVALUATION_DAY).digest != workspace.need(asset, EVALUATION_DAY).digest
    models = [at.need("dssm_model", EVALUATION_DAY) for at in (workspace, changed)]
    for file, is_same in (("model.bin", False), ("towers.json", True)):
        ours, theirs = (at.artifacts.read_bytes(model, file) for at, model in zip((workspace, changed), models, strict=True))
        assert (ours == theirs) == is_same
