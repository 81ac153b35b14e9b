"""Opening a bundle: checked against its manifest, or refused."""

import json
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import DuplicateKeyError, PartitionMissingError, StorageError
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.service.engine.id_rows import IdRows
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine
from dssm_assets_tests.service import bundles

FIRST, SECOND = "2024-01-12", "2024-01-13"
FILES = (
    "fg.json",
    "feature_config.parquet",
    "feature_counts.parquet",
    "towers.json",
    "user_tower.onnx",
    "item_ids.arrow",
    "item_vectors.arrow",
    "item_index.faiss",
    "user_vectors.arrow",
    "popular_items.arrow",
)


def test_bundle_has_the_manifests_name_day_and_sizes(tmp_path):
    folder = bundles.write_bundle(tmp_path)
    bundle = RecallEngine.open(str(tmp_path)).bundle
    assert (bundle.bundle_id, bundle.name, bundle.ds, bundle.dims) == (folder.name, "hand", "2024-01-12", 2)
    assert (len(bundle.items), len(bundle.users)) == (4, 2)
    assert bundle.items.ids_at(bundle.popular_rows) == ["n2", "n0", "n3", "n1"]


def test_open_follows_the_pointer_unless_given_a_bundle_id(tmp_path):
    first, second = (bundles.write_bundle(tmp_path, ds).name for ds in (FIRST, SECOND))
    assert RecallEngine.open(str(tmp_path)).bundle.bundle_id == second
    assert RecallEngine.open(str(tmp_path), bundle_id=first).bundle.bundle_id == first


def test_bundle_of_a_remote_store_is_downloaded(tmp_path):
    bundles.write_bundle(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/bucket/serving", recursive=True)
    try:
        engine = RecallEngine.open("memory://bucket/serving")
        assert engine.recall_for_user("u", ListOptions(2)).item_ids == ["n0", "n2"]
    finally:
        memory.rm("/bucket", recursive=True)


def test_missing_bundle_and_broken_pointer_are_named(tmp_path):
    with pytest.raises(PartitionMissingError, match="run dssm-assets publish"):
        RecallEngine.open(str(tmp_path))
    (tmp_path / "current.json").write_text("{")
    with pytest.raises(StorageError, match="not a pointer to a bundle"):
        RecallEngine.open(str(tmp_path))


@pytest.mark.parametrize("name", FILES)
def test_damage_of_any_file_is_refused(tmp_path, name):
    folder = bundles.write_bundle(tmp_path)
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(StorageError, match=f"{FIRST}-.*: files differ from the manifest: {name} has another sha256"):
        RecallEngine.open(str(tmp_path))
    (folder / name).unlink()
    with pytest.raises(StorageError, match=f"{FIRST}-.*: files differ from the manifest: {name} is missing"):
        RecallEngine.open(str(tmp_path))
    (folder / name).write_bytes(b"nonsense")
    bundles.renew_manifest(folder)
    with pytest.raises(StorageError, match=FIRST):
        RecallEngine.open(str(tmp_path))


@pytest.mark.parametrize("is_verified", [True, False])
def test_truncated_file_is_refused_even_without_verification(tmp_path, is_verified):
    path = bundles.write_bundle(tmp_path) / "item_index.faiss"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=f"item_index.faiss has {size - 1} bytes instead of {size}"):
        RecallEngine.open(str(tmp_path), is_verified=is_verified)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 5}, r"items \(5, 4, 4, 4\)"),
        ({"users": 1}, r"users \(1, 2\)"),
        ({"dims": 3}, r"dims \(3, 2, 2\); numbers of a user \(3, 2\)"),
        ({"format": 3}, "format 3, this version reads 1, 2"),
        ({"files": {"../../etc/passwd": {"sha256": "", "bytes": 0}}}, "names files outside the bundle"),
    ],
)
def test_manifest_that_contradicts_the_files_is_refused(tmp_path, changes, message):
    bundles.renew_manifest(bundles.write_bundle(tmp_path), **changes)
    with pytest.raises(StorageError, match=message):
        RecallEngine.open(str(tmp_path))


def test_item_ids_and_vectors_in_different_orders_are_refused(tmp_path):
    folder = bundles.write_bundle(tmp_path)
    bundles._arrow(folder / "item_ids.arrow", pa.table({"item_id": list(bundles.ITEMS)[::-1], "row": [0, 1, 2, 3]}))
    bundles.renew_manifest(folder)
    with pytest.raises(StorageError, match="item_ids and item_vectors have different items"):
        RecallEngine.open(str(tmp_path))


def test_bundle_removed_while_it_is_opened_is_replaced_by_the_next(tmp_path, monkeypatch):
    folder = bundles.write_bundle(tmp_path, FIRST)
    load, published = Bundle.__init__, []

    def load_after_removal(self, fetched):
        if fetched.bundle_id == folder.name and folder.exists():
            published.append(bundles.write_bundle(tmp_path, SECOND).name)
            shutil.rmtree(folder)
        load(self, fetched)

    monkeypatch.setattr(Bundle, "__init__", load_after_removal)
    assert [RecallEngine.open(str(tmp_path)).bundle.bundle_id] == published


def test_open_bundle_survives_the_removal_of_its_files(tmp_path):
    folder = bundles.write_bundle(tmp_path)
    engine = RecallEngine.open(str(tmp_path))
    shutil.rmtree(folder)
    assert engine.recall_for_user("u", ListOptions(2)).item_ids == ["n0", "n2"]


def test_tower_with_other_inputs_than_towers_json_is_refused(tmp_path):
    folder = bundles.write_bundle(tmp_path)
    spec = bundles.tower_spec()
    spec["features"] = [feature for feature in spec["features"] if feature["name"] != "tags"]
    (folder / "towers.json").write_text(json.dumps({"spec": spec}))
    bundles.renew_manifest(folder)
    with pytest.raises(StorageError, match="differ in the inputs indices/tags, weights/tags"):
        RecallEngine.open(str(tmp_path))


@pytest.mark.parametrize("ids", [[5, -3, 2**62, 0], ["b", "a", "ä", "", "中", "\U0001f600", "z"]])
def test_id_rows_map_ids_to_rows_and_back(ids):
    rows = IdRows(pa.chunked_array([ids[:2], ids[2:]]), "ids")
    assert [rows.find_row(name) for name in ids] == list(range(len(ids)))
    assert rows.find_row(7 if rows.is_integer else "c") == rows.find_row(-(2**62) if rows.is_integer else "\U0010ffff") == -1
    assert rows.ids_at(np.array([1, 0])) == [ids[1], ids[0]]
    with pytest.raises(DuplicateKeyError, match="1 ids more than once"):
        IdRows(pa.chunked_array([[*ids, ids[0]]]), "ids")
    assert IdRows(pa.chunked_array([ids[:0]], rows._ids.type), "ids").find_row(ids[0]) == -1
