"""A model with a frozen embedding next to the towers' outputs: stored, evaluated and served alike."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.models.group_codes import GroupCodes, read_keys
from dssm_assets_tests.steps.refitted_worlds import refit, vectors_of
from dssm_assets_tests.steps.train_files import train_tables
from dssm_assets_tests.worlds import EVALUATION_DAY

TOWER, CODES = 8, 4
CHANGES = {
    "statistics": {"embedding_dim": {"item": CODES}},
    "model": {"output_dim": TOWER + CODES, "frozen_embedding": "item", "poolings": [{"kind": "root", "length": 20}]},
    "training": {"epochs": 1, "svd_init": {"embedding": "item", "scale": 2.0, "ridge": 1.0, "group_by": ["category"]}},
}


@pytest.fixture(scope="module")
def refitted_world(tmp_path_factory):
    """Returns the workspace, and the checks of each step by name."""
    return refit(tmp_path_factory, tmp_path_factory.mktemp("frozen") / "world", CHANGES)


def test_tower_columns_have_length_one_and_codes_separate_the_groups(refitted_world):
    workspace, checks = refitted_world
    items, users = vectors_of(workspace, "item"), vectors_of(workspace, "user")
    for vector in (*items.values(), *users.values()):
        assert vector.shape == (TOWER + CODES,)
        assert np.linalg.norm(vector[:TOWER]) == pytest.approx(1, rel=1e-5)
    for step, check in (
        ("item_vectors", "structure"),
        ("serving_bundle", "exported_towers"),
        ("serving_bundle", "index_recall"),
    ):
        assert checks[step][check].is_passed, checks[step][check].sentence
    product = {(u, i): users[u][TOWER:] @ items[i][TOWER:] for u in users for i in items}
    own = [value for (user, item), value in product.items() if user[0] == item[0]]
    other = [value for (user, item), value in product.items() if user[0] != item[0]]
    assert np.mean(own) > np.mean(np.abs(other)) + 0.1  # no user has items of the other group


def test_an_item_without_a_code_has_that_of_its_group(refitted_world):
    workspace, _ = refitted_world
    model = workspace.need("dssm_model", EVALUATION_DAY)
    codes = GroupCodes.from_bytes(workspace.artifacts.read_bytes(model, ModelFile.GROUP_CODES))
    items = train_tables(workspace, EVALUATION_DAY)["items"]
    without = np.ones((items.num_rows, TOWER + CODES), np.float32)
    without[:, TOWER:] = 0
    filled = codes.fill_in(without, read_keys(items, codes.features))
    own = np.stack(list(vectors_of(workspace, "item").values()))
    for category in set(items.column("category").to_pylist()):
        members = np.flatnonzero(items.column("category").to_numpy() == category)
        mean = own[members, TOWER:].mean(axis=0)
        code = filled[members[0], TOWER:]
        assert (filled[members] == filled[members[0]]).all()
        assert (filled[members, :TOWER] == 1).all()
        assert mean @ code > 0.9 * np.linalg.norm(mean) * np.linalg.norm(code) > 0
