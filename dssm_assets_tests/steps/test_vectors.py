"""Vectors of the tiny world: written in parts, never replaced by broken ones, and compared with the day before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import CheckFailedError
from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS, USER_VECTORS
from dssm_assets.core.training.inference import ItemInference
from dssm_assets.steps.vectors import item_vectors, user_vectors
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.storage.stores import verify
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

DIMS, ITEMS = 8, 20
PREVIOUS_DAY = DAYS[-2]


@pytest.fixture
def workspace(world, tmp_path):
    return open_workspace(world.copy(tmp_path / "copy"))


def run(step, workspace):
    (result,) = step(workspace, [EVALUATION_DAY])
    return result, {check.name: check for check in result.checks}


def rows(workspace, name, ds=EVALUATION_DAY):
    return workspace.tables.read(workspace.need(name, ds))


def matrix(table):
    return np.array(table.column(1).to_pylist(), np.float32)


@pytest.mark.parametrize(("name", "step"), [("item_vectors", item_vectors), ("user_vectors", user_vectors)])
def test_small_parts_give_the_same_vectors(workspace, monkeypatch, name, step):
    before = rows(workspace, name)
    monkeypatch.setattr("dssm_assets.storage.tables.ROW_GROUP_ROWS", 5)
    result, checks = run(step, workspace)
    after = rows(workspace, name)
    assert len(after) == len(before) > 10
    assert after.schema == before.schema
    assert after.column(0) == before.column(0)
    np.testing.assert_allclose(matrix(after), matrix(before), atol=1e-6)
    assert checks["structure"].is_passed
    assert result.manifest.inputs == workspace.need(name, EVALUATION_DAY).inputs


def test_users_without_history_are_counted_over_all_parts(workspace, monkeypatch):
    stored = workspace.need("train_samples", EVALUATION_DAY)
    users = workspace.artifacts.map_table(stored, "users.arrow")
    map_table = workspace.artifacts.map_table
    known = users.filter(pa.array([user not in ("a0", "b3") for user in users.column("user_id").to_pylist()]))
    monkeypatch.setattr("dssm_assets.storage.tables.ROW_GROUP_ROWS", 5)
    monkeypatch.setattr(
        type(workspace.artifacts), "map_table", lambda _, m, name: known if name == "users.arrow" else map_table(m, name)
    )
    result, _ = run(user_vectors, workspace)
    assert result.facts["users_without_history"] == 2


def test_figures_and_checks_of_the_first_day(workspace):
    result, checks = run(item_vectors, workspace)
    assert result.facts["dims"] == DIMS
    assert checks["structure"].description == "20 vectors of 8 floats, ids unique, all finite, none all zeros"
    assert checks["vector_drift"].is_passed
    assert checks["vector_drift"].description == f"no partition before {EVALUATION_DAY} to compare with"


def spoil(monkeypatch, value):
    vectors = ItemInference.vectors

    def spoilt(self, items):
        found = vectors(self, items)
        found[3] = value
        return found

    monkeypatch.setattr(ItemInference, "vectors", spoilt)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "1 not finite (NaN or infinity): a_03"), (0.0, "1 all zeros: a_03")])
def test_unfit_vectors_do_not_replace_what_stood(workspace, monkeypatch, value, said):
    existing = workspace.need("item_vectors", EVALUATION_DAY)
    spoil(monkeypatch, value)
    result, checks = run(item_vectors, workspace)
    assert (checks["structure"].is_passed, checks["structure"].description) == (False, said)
    assert result.manifest == workspace.need("item_vectors", EVALUATION_DAY) == existing
    assert not checks["vector_drift"].is_passed
    verify(workspace.tables.partitions, existing)


def test_broken_vectors_are_written_without_an_existing_partition_and_still_fail(workspace, monkeypatch):
    workspace.tables.partitions.remove("item_vectors", EVALUATION_DAY)
    spoil(monkeypatch, 0.0)
    result, checks = run(item_vectors, workspace)
    assert not checks["structure"].is_passed
    assert result.manifest.rows == ITEMS


def test_broken_vectors_stop_what_depends_on_them(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "spoilt")
    workspace = open_workspace(loaded)
    workspace.tables.partitions.remove("hit_counts", EVALUATION_DAY)
    spoil(monkeypatch, np.inf)
    with pytest.raises(CheckFailedError, match=r"check structure of item_vectors: .*1 not finite .*: a_03"):
        worlds.materialize(loaded, ["item_vectors", "hit_counts"], [EVALUATION_DAY])
    assert workspace.find("hit_counts", EVALUATION_DAY) is None


def put_before(workspace, spec, vectors, ids=None):
    """Writes a partition of the previous day with these vectors."""
    table = rows(workspace, spec.name)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
    named = table.column(0) if ids is None else pa.array(ids)
    key, vector = table.column_names
    workspace.tables.write(spec, PREVIOUS_DAY, pa.table({key: named, vector: column}))


def test_rotated_vectors_have_not_drifted(workspace):
    now = matrix(rows(workspace, "item_vectors"))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMS, DIMS)))[0]
    put_before(workspace, ITEM_VECTORS, now @ turn)
    result, checks = run(item_vectors, workspace)
    assert checks["vector_drift"].is_passed
    assert result.facts["drift_against"] == PREVIOUS_DAY
    assert result.facts["drift_cosine_aligned_mean"] == pytest.approx(1, abs=0.02)
    assert result.facts["drift_cosine_raw_mean"] == pytest.approx((now * (now @ turn)).sum(axis=1).mean(), abs=1e-5)
    assert not [name for name in result.manifest.inputs if name.startswith("item_vectors")]


def test_vectors_of_other_items_under_the_old_ids_have_drifted_below_the_floor(workspace):
    put_before(workspace, ITEM_VECTORS, np.random.default_rng(1).normal(size=(ITEMS, DIMS)))
    _, checks = run(item_vectors, workspace)
    assert not checks["vector_drift"].is_passed
    assert f"against {PREVIOUS_DAY}: mean cosine" in checks["vector_drift"].description
    assert "(floor 0.5)" in checks["vector_drift"].description


def test_drift_reports_new_and_gone_users_in_any_order(workspace):
    now = rows(workspace, "user_vectors")
    users = now.column("user_id").to_pylist()
    renamed = ["new" if user == "a1" else user for user in reversed(users)]
    put_before(workspace, USER_VECTORS, matrix(now)[::-1].copy(), renamed)
    result, checks = run(user_vectors, workspace)
    assert result.facts["drift_common_ids"] == 11
    assert result.facts["drift_cosine_raw_mean"] == pytest.approx(1, abs=1e-6)
    # 12 users are too few to align 8 dimensions.
    assert checks["vector_drift"].is_passed
    assert "at least 16 are needed" in checks["vector_drift"].description


@pytest.mark.parametrize(("name", "step"), [("item_vectors", item_vectors), ("user_vectors", user_vectors)])
def test_several_processes_write_the_same_bytes_as_one(quick, world, tmp_path, monkeypatch, name, step):
    monkeypatch.setattr("dssm_assets.steps.vectors.PART_ROWS", 3)
    found = {}
    for processes in (1, 2):
        workspace = open_workspace(world.copy(tmp_path / str(processes), {"evaluation": {"num_processes": processes}}))
        result, checks = run(step, workspace)
        assert checks["structure"].is_passed
        found[processes] = (result.manifest.digest, len(result.manifest.files), result.facts.get("users_without_history"))
    assert found[1] == found[2]
    assert found[1][1] == -(-len(rows(workspace, name)) // 3)
