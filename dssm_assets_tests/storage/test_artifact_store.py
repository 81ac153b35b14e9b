"""Artifacts: bytes and memory-mapped Arrow files under their names, near and far."""

import pyarrow as pa
import pytest

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.artifact_store import ArtifactStore
from dssm_assets_tests.storage.stores import DS, stores

TABLE = pa.table({"item_index": pa.array([3, 1, 2], pa.int32()), "tags": pa.array([[1], [], [2, 3]], pa.list_(pa.int32()))})


@pytest.fixture(params=["local", "memory"])
def artifacts(request, tmp_path):
    return ArtifactStore(stores(tmp_path)[request.param], tmp_path / "cache")


def test_bytes_and_tables_come_back_as_they_were(artifacts):
    manifest = artifacts.publish(
        "train_samples", DS, {"samples.arrow": TABLE, "report.json": b"{}"}, row_file="samples.arrow", facts={"samples": 3}
    )
    assert artifacts.read_bytes(manifest, "report.json") == b"{}"
    assert artifacts.map_table(manifest, "samples.arrow").equals(TABLE)
    assert manifest.rows == 3
    assert artifacts.partitions.manifest("train_samples", DS) == manifest


def test_a_mapped_table_is_not_copied_into_memory(artifacts):
    big = pa.table({"x": pa.array(range(1_000_000), pa.int64())})
    manifest = artifacts.publish("train_samples", DS, {"big.arrow": big})
    before = pa.total_allocated_bytes()
    mapped = artifacts.map_table(manifest, "big.arrow")
    assert pa.total_allocated_bytes() - before < 100_000
    assert mapped.column("x")[999_999].as_py() == 999_999
    assert mapped.column("x").num_chunks == 1


def test_equal_content_in_other_chunks_is_equal_bytes(artifacts):
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    whole = artifacts.publish("train_samples", "2024-01-01", {"samples.arrow": TABLE})
    cut = artifacts.publish("train_samples", "2024-01-02", {"samples.arrow": pieces})
    assert cut.digest == whole.digest


def test_an_empty_table_can_be_mapped(artifacts):
    manifest = artifacts.publish("train_samples", DS, {"samples.arrow": TABLE.slice(0, 0)})
    mapped = artifacts.map_table(manifest, "samples.arrow")
    assert mapped.num_rows == 0
    assert mapped.schema.equals(TABLE.schema)


def test_an_unknown_file_is_refused_with_the_names_there_are(artifacts):
    manifest = artifacts.publish("dssm_model", DS, {"model.bin": b"x", "towers.json": b"y"})
    with pytest.raises(
        StorageError, match=r"artifact dssm_model/2024-01-02 has no file 'model.pt', it has: model.bin, towers.json"
    ):
        artifacts.read_bytes(manifest, "model.pt")


def test_a_remote_file_is_fetched_once_and_again_when_its_content_changes(tmp_path):
    artifacts = ArtifactStore(stores(tmp_path)["memory"], tmp_path / "cache")
    first = artifacts.publish("dssm_model", DS, {"model.bin": b"one"})
    assert artifacts.read_bytes(first, "model.bin") == b"one"
    second = artifacts.publish("dssm_model", DS, {"model.bin": b"two"})
    assert artifacts.read_bytes(second, "model.bin") == b"two"
    # The first is gone from the store; the local copy of its content still serves who holds its manifest.
    assert artifacts.read_bytes(first, "model.bin") == b"one"
