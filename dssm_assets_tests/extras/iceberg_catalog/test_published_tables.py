"""What the catalog lists after days were stored, replaced, removed, or changed their columns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from dssm_assets import cli
from dssm_assets.core.errors import SchemaError
from dssm_assets.extras.iceberg_catalog import published_tables
from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables
from dssm_assets.steps.workspace import days_between
from dssm_assets_tests.extras.iceberg_catalog.tables import (
    ASSET,
    ROOT,
    assert_read_alike,
    files,
    find_table,
    open_published,
    put,
    users,
)
from dssm_assets_tests.programs import needs_extras

ONE, TWO, THREE = "2024-01-01", "2024-01-02", "2024-01-03"


def test_days_are_registered_no_file_is_touched_and_a_second_sync_commits_nothing(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    for ds, ids in ((ONE, [1, 2]), (TWO, [3])):
        put(workspace, ds, ids)
    before = files(tmp_path)
    published.sync(ASSET)
    assert files(tmp_path) == before
    table = find_table(published)
    assert users(table) == {ONE: [1, 2], TWO: [3]}
    assert table.location() == f"file://{tmp_path / ROOT}/_iceberg/tiny/{ASSET}"
    assert_read_alike(published, ASSET)
    published.sync(ASSET)
    put(workspace, TWO, [3])  # equal content has the same name
    published.sync(ASSET, [TWO])
    assert find_table(published).metadata_location == table.metadata_location


def test_a_day_is_replaced_in_one_transaction_that_leaves_the_other_days(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, ONE, [1, 2])
    put(workspace, TWO, [9])
    published.sync(ASSET)
    put(workspace, TWO, [10])
    for ids in ([3], [4, 5, 6], [7]):
        put(workspace, ONE, ids)
        published.sync(ASSET, [ONE])
    published.sync(ASSET)
    table = find_table(published)
    seen = [users(table, snapshot_id=snapshot.snapshot_id) for snapshot in table.snapshots()]
    assert seen == [*({ONE: ids, TWO: [9]} for ids in ([1, 2], [3], [4, 5, 6], [7])), {ONE: [7], TWO: [10]}]
    assert_read_alike(published, ASSET)


def test_empty_days_and_unstored_tables_are_no_rows(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    published.sync(ASSET)
    assert published.find_listed(ASSET) == set()
    put(workspace, ONE, pa.array([], pa.int64()))
    put(workspace, TWO, [1])
    published.sync(ASSET)
    assert_read_alike(published, ASSET)


def test_types_of_ours_are_read_as_stored(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    columns = {
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "small": pa.array([-1, None], pa.int8()),
        "tiny": pa.array([1, 255], pa.uint8()),
        "text": pa.array(["a", None]).dictionary_encode(),
        "lists": pa.array([["x", "y"], []], pa.list_(pa.string())),
        "flags": pa.array([[True], None], pa.list_(pa.bool_())),
        "rate": pa.array([0.5, float("inf")]),
        "day": pa.array([0, 1], pa.date32()),
    }
    put(workspace, ONE, ["u", "v"], **columns)
    published.sync(ASSET)
    assert published.find_listed(ASSET) == set(files(tmp_path))
    assert_read_alike(published, ASSET)


def test_columns_that_come_go_and_become_wider(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, ONE, [1], a=pa.array([1], pa.int32()), b=pa.array(["x"]))
    published.sync(ASSET)
    put(workspace, TWO, [2], a=pa.array([1 << 40]), c=pa.array([[0.5]]))
    published.sync(ASSET)
    put(workspace, THREE, [3], a=pa.array([3], pa.int32()))
    published.sync(ASSET)
    table = find_table(published)
    rows = sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["user_id"])
    assert pl.scan_iceberg(table, reader_override="native").sort("user_id").collect().to_dicts() == rows
    assert rows == [
        {"user_id": 1, "a": 1, "b": "x", "ds": ONE, "c": None},
        {"user_id": 2, "a": 1 << 40, "b": None, "ds": TWO, "c": [0.5]},
        {"user_id": 3, "a": 3, "b": None, "ds": THREE, "c": None},
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            {"a": pa.array(["x"])},
            r"table user_all_feature: expected columns .* got Cannot change column type: a: int -> string",
        ),
        ({"ds": pa.array(["x"])}, r"table user_all_feature/2024-01-02: expected no column ds, .*got ds string"),
        ({"n": pa.array([1], pa.uint64())}, r"no unsigned numbers, .*got n uint64"),
        (
            {"t": pa.array([1], pa.timestamp("ns"))},
            r"got Column 't' has .* type: timestamp\[ns\]\. To fix: cast it in the source",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named_and_nothing_changes(tmp_path: Path, column: dict[str, Any], message: str) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, ONE, [1], a=pa.array([1], pa.int32()))
    published.sync(ASSET)
    put(workspace, TWO, [2], **column)
    with pytest.raises(SchemaError, match=message):
        published.sync(ASSET)
    assert users(find_table(published)) == {ONE: [1]}


def test_a_run_that_is_overtaken_reads_the_manifests_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, ONE, [1])
    published.sync(ASSET)
    put(workspace, ONE, [2])
    read, overtaken = published._read_footer, []

    def overtake(*arguments: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            put(workspace, ONE, [3])
            PublishedTables(workspace).sync(ASSET, [ONE])
        return read(*arguments)

    monkeypatch.setattr(published, "_read_footer", overtake)
    published.sync(ASSET, [ONE])
    assert users(find_table(published)) == {ONE: [3]}
    assert len(find_table(published).snapshots()) == 2


def test_snapshots_of_the_grace_period_and_few_metadata_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published_tables._PROPERTIES, "write.metadata.previous-versions-max", "3")
    workspace, published = open_published(tmp_path)
    for number in range(8):
        put(workspace, ONE, [number])
        published.sync(ASSET, [ONE])
    before = find_table(published).snapshots()
    published.expire(ASSET, before[5].timestamp_ms / 1000)
    table = find_table(published)
    assert [snapshot.snapshot_id for snapshot in table.snapshots()] == [snapshot.snapshot_id for snapshot in before[5:]]
    assert [users(table, snapshot_id=snapshot.snapshot_id) for snapshot in before[5:]] == [{ONE: [n]} for n in (5, 6, 7)]
    put(workspace, TWO, [9])
    published.sync(ASSET)
    published.expire(ASSET, time.time())
    assert users(find_table(published)) == {ONE: [7], TWO: [9]}
    metadata = tmp_path / ROOT / "_iceberg"
    assert len(list(metadata.rglob("*.avro"))) == 3, "the list of manifests, and one for each commit that added the files"
    assert len(list(metadata.rglob("*.json"))) == 4, "the current one and three versions before it"


@needs_extras("retention")
def test_files_of_a_live_snapshot_stay_and_go_once_it_is_expired(tmp_path: Path) -> None:
    changes = {"storage": {"keep_days": {"features_raw": 9}, "grace_hours": 0}, "channels": {"held_out_days": 1}}
    workspace, published = open_published(tmp_path, changes)
    days = days_between("2024-01-01", "2024-01-12")
    for number, ds in enumerate(days):
        put(workspace, ds, [number])
    published.sync(ASSET)
    put(workspace, days[-1], [50])
    put(workspace, days[-1], [51])
    assert len(files(tmp_path)) == 14, "with a grace of no hours, the file of the first content would be gone"
    published.sync(ASSET)
    cleanup = ["cleanup", "--config", str(workspace.loaded.path), "--home", str(workspace.loaded.home)]
    time.sleep(0.01)
    assert cli.main(cleanup) == 0
    kept = {ds: [number] for number, ds in enumerate(days)} | {days[-1]: [51]}
    expected = {ds: ids for ds, ids in kept.items() if ds in days[3:]}
    table = find_table(published)
    seen = [users(table, snapshot_id=snapshot.snapshot_id) for snapshot in table.snapshots()]
    assert seen == [kept, kept, expected], "whoever reads the snapshot before the cleanup still finds its files"
    assert_read_alike(published, ASSET)
    assert cli.main(cleanup) == 0
    assert len(files(tmp_path)) == 9
    assert_read_alike(published, ASSET)
