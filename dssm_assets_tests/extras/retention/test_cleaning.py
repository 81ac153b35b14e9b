"""Partitions beyond `storage.keep_days`: which go, which something still needs, and that the next evaluation day is computed without them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from dssm_assets import cli
from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_table import all_rows, expiring_groups
from dssm_assets.extras.retention.leftovers import Kind, clean, find_expired
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets.storage import layout
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle
from dssm_assets_tests.storage.stores import verify
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

KEEP = 9
"""The fewest days that the daily tables of this world may be kept: 6 of the window, the evaluation day and 2 of held-out days."""
GONE = DAYS[:-KEEP]
LATER = days_between("2024-02-01", "2024-02-09")
"""As many: the days of the world are older."""
GROUPS = ("features_raw", "fg", "sample", "statistics")
CHANGES = {"storage": {"keep_days": dict.fromkeys(GROUPS, KEEP), "grace_hours": 0}, "channels": {"held_out_days": 1}}


@pytest.fixture
def world(tmp_path_factory, tmp_path):
    return open_workspace(worlds.built_world(tmp_path_factory).copy(tmp_path / "world", CHANGES))


def named_and_gone():
    """Returns the keys of the old days of the groups that have a limit."""
    return {f"{row.name}/{ds}" for row in all_rows() if row.group in GROUPS and not row.is_log for ds in GONE}


def expired(workspace, *, removes=False):
    found = []
    for leftover in find_expired(workspace, time.time() + 1):
        if removes:
            leftover.remove()
        found.append(leftover)
    assert all(one.kind is Kind.EXPIRED for one in found)
    return {one.path for one in found}


def stored(workspace):
    return {row.name: workspace.tables.partitions.days(row.name) for row in all_rows()}


def test_old_partitions_of_the_named_groups_go_and_logs_stay(world):
    before = stored(world)
    expected = {key for key in named_and_gone() if key.partition("/")[2] in before[key.partition("/")[0]]}
    assert {"user_activity/2024-01-03", "sample_fg/2024-01-01", "item_features_fg/2024-01-02"} <= expected
    assert expired(world) == expected
    assert stored(world) == before, "a dry run removes nothing"
    assert expired(world, removes=True) == expected
    after = stored(world)
    for row in all_rows():
        lost = {ds for ds in GONE if f"{row.name}/{ds}" in expected}
        assert set(before[row.name]) - set(after[row.name]) == lost
    for row in all_rows():
        for ds in after[row.name]:
            verify(world.tables.partitions, world.need(row.name, ds))
    assert expired(world) == set()


def test_an_evaluation_day_is_computed_again_without_them(world):
    digests = []
    for removes in (False, True):
        expired(world, removes=removes)
        worlds.run_steps(world.loaded, worlds.WINDOWED, [EVALUATION_DAY])
        digests.append(world.need("total_hit_rate", EVALUATION_DAY).digest)
    assert digests[0] == digests[1]


def put(store, asset, ds, inputs=None):
    with store.staging() as folder:
        (folder / "file.json").write_text(ds)
        store.publish(asset=asset, ds=ds, staged=[(folder / "file.json", 1)], inputs=inputs)


def test_what_a_bundle_and_an_experiment_were_built_from_stays(world):
    publish_bundle(world)
    store = world.tables.partitions
    (bundle,) = open_bundles(world.loaded).pointer().stored
    needed = set(open_bundles(world.loaded).manifest(bundle)["inputs"])
    put(OverlayStore(store, "trial"), "dssm_model", EVALUATION_DAY, {"user_activity/2024-01-02": "digest"})
    for ds in LATER:
        put(store, "user_activity", ds)
    found = expired(world)
    assert {f"item_features_fg/{EVALUATION_DAY}", "positive_sample/2024-01-08"} <= needed
    assert "user_activity/2024-01-02" not in found
    assert not needed & found
    every = {f"{name}/{ds}" for name, group in expiring_groups().items() if group in GROUPS for ds in store.days(name)}
    assert every - found == (every & needed) | {"user_activity/2024-01-02", *(f"user_activity/{ds}" for ds in LATER)}


@pytest.mark.parametrize("wrong", [["2099-06-01", "2099-06-02"], days_between("2024-02-20", "2024-02-23"), ["2023-01-01"]])
def test_days_of_wrong_dates_make_no_other_day_old(world, wrong):
    for ds in wrong:
        put(world.tables.partitions, "behavior", ds)
    assert expired(world) == {key for key in named_and_gone() if world.find(*key.split("/")) is not None}


def test_days_count_in_the_calendar_whichever_of_them_are_stored(tmp_path):
    workspace = open_workspace(worlds.write_config(tmp_path, {"storage": {"keep_days": {"vectors": 10, "training": 2}}}))
    store = workspace.tables.partitions
    for ds in (*DAYS[:-6], *DAYS[-5:-2], DAYS[-1]):  # without the 7th and the 11th
        put(store, "behavior", ds)
    for asset in ("user_vectors", "dssm_model"):
        for ds in DAYS[1::2]:
            put(store, asset, ds)
    # Of the two days that the 12th ends one is stored: two days count back from the 10th.
    assert expired(workspace) == {f"user_vectors/{ds}" for ds in DAYS[1:2]} | {f"dssm_model/{ds}" for ds in DAYS[1:8:2]}


def test_a_partition_that_is_written_between_search_and_removal_stays(world):
    found = {one.path: one for one in find_expired(world, time.time())}
    assert found["sample_fg/2024-01-01"].remove() is True
    again = found["sample_fg/2024-01-02"]
    put(world.tables.partitions, "sample_fg", "2024-01-02")
    assert again.remove() is False
    verify(world.tables.partitions, world.need("sample_fg", "2024-01-02"))


def test_a_removed_bundle_that_the_pointer_still_lists_does_not_stop_a_cleanup(world):
    publish_bundle(world)
    bundles = open_bundles(world.loaded)
    bundles.remove(bundles.current_id())
    assert expired(world) != set()


def test_a_dry_run_lists_what_a_run_removes(world):
    store = world.tables.partitions
    hasty, store.grace_seconds = store.grace_seconds, 3600
    put(store, "sample_fg", GONE[0])  # with replaced files
    store.grace_seconds = hasty
    for ds in (GONE[0], DAYS[-1]):
        store.fs.pipe_file(f"{layout.partition_folder(store.root, 'sample_fg', ds)}/left.parquet", b"1234")
    time.sleep(0.01)
    dry, wet = ({(one.kind, one.path, one.bytes) for one in clean(world, removes=removes)} for removes in (False, True))
    assert dry == wet
    assert {kind for kind, *_ in wet} >= {Kind.EXPIRED, Kind.PARTITION}


def test_partitions_of_windowed_assets_count_back_from_the_latest_day(tmp_path):
    changes = {"storage": {"keep_days": {"training": 8, "vectors": 8, "evaluation": 8}}}
    workspace = open_workspace(worlds.write_config(tmp_path, changes))
    store = workspace.tables.partitions
    for asset, days in {"dssm_model": DAYS, "user_vectors": DAYS[:10], "total_hit_rate": DAYS[:3]}.items():
        for ds in days:
            put(store, asset, ds)
    assert expired(workspace, removes=True) == {
        *(f"dssm_model/{ds}" for ds in DAYS[:4]),
        *(f"user_vectors/{ds}" for ds in DAYS[:4]),
        *(f"total_hit_rate/{ds}" for ds in DAYS[:3]),
    }
    assert store.days("dssm_model") == DAYS[4:]
    assert store.days("total_hit_rate") == []


def test_what_was_written_during_the_grace_period_stays(world):
    hour_ago = time.time() - 3600
    assert list(find_expired(world, hour_ago)) == []
    path = Path(layout.manifest_path(world.tables.partitions.root, "sample_fg", GONE[0]))
    os.utime(path, (hour_ago - 60,) * 2)
    assert [one.path for one in find_expired(world, hour_ago)] == [f"sample_fg/{GONE[0]}"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"sample": 8}, r"storage\.keep_days\.sample: expected at least 9 days, which the next evaluation day reads, got 8"),
        ({"vectors": 1}, r"storage\.keep_days\.vectors: expected at least 2 days"),
        ({"evaluation": 7}, r"storage\.keep_days\.evaluation: expected at least 8 days"),
        ({"evaluation": 0}, r"storage\.keep_days\.evaluation: .*greater than or equal to 1"),
        ({"source": 90}, r"storage\.keep_days\.source: expected a group: config, .*source tables are logs"),
    ],
)
def test_what_would_be_read_later_is_kept(tmp_path, keep, message):
    with pytest.raises(ConfigError, match=message):
        worlds.write_config(tmp_path, {"storage": {"keep_days": keep}, "channels": {"held_out_days": 1}})


def test_a_warm_start_needs_the_configuration_of_the_model_before(tmp_path):
    training = {"warm_start": True, "validation_days": 3}
    with pytest.raises(ConfigError, match=r"keep_days\.config: expected at least 4 days"):
        worlds.write_config(tmp_path, {"storage": {"keep_days": {"config": 3}}, "training": training})


def test_groups_that_may_be_named_are_those_of_the_asset_table(tmp_path):
    groups = set(expiring_groups().values())
    worlds.write_config(tmp_path, {"storage": {"keep_days": dict.fromkeys(groups, 100)}})


def test_dry_run_lists_bytes_per_asset(world, capsys):
    arguments = ["cleanup", "--config", str(world.loaded.path), "--home", str(world.loaded.home), "--dry-run"]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"sample_fg/{GONE[0]}" in lines
    (line,) = [line for line in lines if line.startswith("  sample_fg: ")]
    size = sum(world.need("sample_fg", ds).size_bytes for ds in GONE)
    assert line == f"  sample_fg: {len(GONE)}, {size / 1e6:.1f} MB"
    assert lines[-1] == "nothing was removed"


def test_the_asset_removes_and_tells_the_bytes(world):
    defs = build_definitions(world.loaded)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(asset_selection=[dg.AssetKey("cleanup")])
    (event,) = result.asset_materializations_for_node("cleanup")
    records = {record.data["what"]: record.data for record in event.metadata["per asset"].value.records}
    assert records["sample_fg"]["removed"] == len(GONE)
    assert event.metadata["removed_bytes"].value == sum(one["bytes"] for one in records.values())
    assert world.find("sample_fg", GONE[0]) is None
