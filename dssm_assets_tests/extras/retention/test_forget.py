"""Forgetting two of the twelve users of a world with every kind of table, and a bundle."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets import cli
from dssm_assets.core.errors import InputError, PartitionReplacedError
from dssm_assets.core.features_raw.raw_feature_tables import BEHAVIOR
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.forgotten import Forgotten
from dssm_assets.defs.asset_factory import run_step
from dssm_assets.extras.retention import leftovers
from dssm_assets.extras.retention.forget import UnfinishedRequestError, forget, on_run_start, read_user_ids
from dssm_assets.installed_extras import load_extra
from dssm_assets.serving.live import LiveEngine
from dssm_assets.steps import features_raw, source, statistics
from dssm_assets.steps.previous_day import find_features_of_positives
from dssm_assets.steps.workspace import is_current, open_workspace
from dssm_assets.storage.bundles import open_bundles
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.retention.forgetting import GONE, MARK, find_marks, write_world
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.steps.bundles import PlainBundle, publish_bundle
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

IDS = pa.array(sorted(GONE.values()))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marked")
    workspace = worlds.build_all(write_world(folder))
    publish_bundle(workspace)
    return folder


@pytest.fixture
def world(built, tmp_path):
    shutil.copytree(built, tmp_path / "world")
    return load_config(tmp_path / "world" / "config.yaml", tmp_path / "world" / "home")


@pytest.fixture
def workspace(world):
    return open_workspace(world)


def manifests(workspace):
    store = workspace.tables.partitions
    return {one.key: one for asset in store.assets() for ds in store.days(asset) if (one := store.find(asset, ds))}


def test_no_file_of_the_home_has_an_id_and_everything_else_stays(world, workspace):
    before, vectors = manifests(workspace), PlainBundle(workspace).vectors("user")
    assert len(list(find_marks(world.home))) > 100
    receipt = forget(workspace, IDS)
    assert list(find_marks(world.home)) == []
    after = manifests(workspace)
    assert after.keys() == before.keys()
    assert all(after[key].inputs == before[key].inputs and after[key].facts == before[key].facts for key in before)
    # 3 buys a day, and clicks on the first 1 + (n + d) mod 3 of them: of users 6 and 7 on the first day 1 and 2
    assert receipt.partitions[f"behavior/{DAYS[0]}"]["rows"] == 6 + 3
    assert receipt.partitions[f"user_vectors/{EVALUATION_DAY}"]["rows"] == 2
    assert {key for key in before if before[key].digest != after[key].digest} == receipt.partitions.keys()
    bundle = PlainBundle(workspace)
    assert bundle.vectors("user") == {user: vector for user, vector in vectors.items() if user not in GONE.values()}
    assert receipt.bundles == {bundle.manifest["was"][0]: bundle.bundle_id}


def test_lineage_of_what_was_written_again_holds(workspace):
    forget(workspace, IDS)
    assert all(is_current(workspace, manifest) for manifest in manifests(workspace).values())


def test_samples_of_others_still_point_to_their_own_features(workspace):
    counts = {ds: workspace.tables.read(workspace.need("numeric_value_counts", ds)) for ds in DAYS[1:3]}
    forget(workspace, IDS)
    for ds in DAYS[1:]:
        positive = workspace.need("positive_sample", ds)
        pointed = find_features_of_positives(workspace, "user", positive)
        rows = workspace.tables.read(positive, ["user_id", "user_row"])
        owners = workspace.tables.read(pointed.manifest, ["user_id"]).column(0)
        found = pointed.locate(rows.column("user_row"))
        assert found.null_count == 0
        assert owners.take(found).to_pylist() == rows.column("user_id").to_pylist()
    list(statistics.numeric_value_counts(workspace, DAYS[1:3]))
    for ds, former in counts.items():
        now = workspace.tables.read(workspace.need("numeric_value_counts", ds))
        found = [sum(row["count"] for row in one.to_pylist() if row["feature"] == "user_buy_count_3d") for one in (former, now)]
        assert found == [3 * 12, 3 * 10], "three buys of each user"


def read_samples(workspace):
    """Returns each training sample as (user, item, time, its history, the indices of its user)."""
    manifest = workspace.need("train_samples", EVALUATION_DAY)
    tables = {file.name: workspace.artifacts.map_table(manifest, file.name).to_pydict() for file in manifest.files}
    samples, users, history = (
        tables[name] for name in (TrainSamplesFile.SAMPLES, TrainSamplesFile.USERS, TrainSamplesFile.HISTORY)
    )
    features = tables[TrainSamplesFile.USER_ROWS]
    found = []
    for row, user in enumerate(samples["user_index"]):
        seen = history["item_index"][users["history_start"][user] : samples["history_end"][row]]
        own = [values[samples["user_row"][row]] for values in features.values()]
        found.append((users["user_id"][user], samples["item_index"][row], samples["event_time_ms"][row], seen, own))
    return found


def test_training_samples_of_others_are_the_same(workspace):
    before = read_samples(workspace)
    forget(workspace, IDS)
    assert read_samples(workspace) == [sample for sample in before if sample[0] not in GONE.values()]
    assert len(before) == 12 * 3 * worlds.WINDOW_DAYS


def test_late_rows_are_dropped_and_states_of_items_are_rebuilt(world, workspace):
    forget(workspace, IDS)
    days = DAYS[-2:]
    for step in (source.behavior_table, source.user_table, source.item_table, features_raw.behavior):
        list(step(workspace, days))
    (of_users, _), (of_items, _) = (step(workspace, days) for step in (features_raw.user_activity, features_raw.item_activity))
    methods = [of_users.facts["state"], of_items.facts["state"]]
    assert methods == ["rolled", f"rebuilt from {len(DAYS) - 1} days"]
    assert list(find_marks(world.home)) == []
    buys = [
        row
        for row in workspace.tables.read(workspace.need("item_activity", EVALUATION_DAY)).to_pylist()
        if row["event"] == "buy"
    ]
    assert sum(row["count_1d"] for row in buys) == 3 * 10
    assert sum(row["count_3d"] for row in buys) == 3 * 3 * 10


def test_run_that_began_before_reads_again(world):
    early = open_workspace(world)
    rows = early.tables.read(early.need("behavior", DAYS[0]))
    forget(open_workspace(world), IDS)
    with pytest.raises(PartitionReplacedError, match="To fix: run it again"):
        early.tables.write(BEHAVIOR, DAYS[0], rows)
    ((again, _),) = run_step(features_raw.user_history, early, DAYS[:1])
    assert again.manifest.rows == 10
    assert list(find_marks(world.home)) == []


def test_run_that_is_refused_removes_no_file_that_is_listed(world):
    tables = open_workspace(world).tables
    manifest = tables.partitions.manifest("behavior", DAYS[0])
    rows = tables.read(manifest)
    part = tables.put_part(BEHAVIOR, DAYS[0], 0, rows.schema, rows.to_batches())
    tables.partitions.forgotten.change(lambda now: Forgotten(now.salt, state="another"))
    with pytest.raises(PartitionReplacedError, match="users to be forgotten"):
        tables.publish_parts(BEHAVIOR, DAYS[0], [part], schema=rows.schema)
    assert tables.read(manifest).equals(rows)


def test_service_treats_them_as_unknown_within_a_second(world, workspace):
    live = LiveEngine(open_bundles(world).root, check_seconds=3600)
    live.watches.start()
    users = live.engine.bundle.users
    assert users.find_row(IDS[0].as_py()) >= 0
    workspace.tables.partitions.forgotten.change(lambda now: Forgotten(now.salt, now.adding(IDS)))
    time.sleep(1.0)
    assert [users.find_row(user) for user in IDS.to_pylist()] == [-1, -1]
    assert users.find_row("a0") >= 0
    live.watches.stop()


def test_killed_request_is_ended_by_the_next_run(world, workspace):
    workspace.tables.partitions.forgotten.change(lambda now: Forgotten(now.salt, now.adding(IDS), request="cut short"))
    assert list(find_marks(world.home))
    on_run_start(workspace)
    assert list(find_marks(world.home)) == []
    assert workspace.tables.partitions.forgotten.read().request == ""
    on_run_start(workspace)
    assert len(list((world.home / "receipts").iterdir())) == 1


def test_request_has_not_ended_before_its_files_are_removed(world, monkeypatch):
    store = open_workspace(world).tables.partitions
    staged = Path(store.root, "_staging", "killed")
    staged.mkdir(parents=True)
    (staged / "rows").write_text(MARK)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(leftovers, "find_bundles", stop)
        forget(open_workspace(world), IDS)
    assert list(find_marks(world.home))
    on_run_start(open_workspace(world))
    assert list(find_marks(world.home)) == []


def test_damaged_files_hold_up_no_run_that_replaces_them(world, workspace):
    manifest = workspace.need("behavior", DAYS[0])
    Path(workspace.tables.paths([manifest])[0]).write_bytes(b"PAR1")
    Path(PlainBundle(workspace).folder, "user_vectors.arrow").write_bytes(b"x")
    with pytest.raises(UnfinishedRequestError, match=f"behavior/{DAYS[0]}.*bundle {EVALUATION_DAY}.*run dssm-assets forget"):
        forget(workspace, IDS)
    on_run_start(workspace)
    assert workspace.tables.partitions.forgotten.read().request
    list(features_raw.behavior(open_workspace(world), DAYS[:1]))
    publish_bundle(open_workspace(world))
    on_run_start(workspace)
    assert not workspace.tables.partitions.forgotten.read().request
    assert list(find_marks(world.home)) == []


def test_old_days_go_and_cannot_come_back(world, workspace):
    for short in (0, worlds.WINDOW_DAYS + 1, 10**9):
        with pytest.raises(InputError, match="expected 8 days, which the next evaluation day reads, to 100,000"):
            forget(workspace, pa.array([], pa.string()), short)
    workspace.tables.write(BEHAVIOR, "2999-01-01", workspace.tables.read(workspace.need("behavior", DAYS[0])))
    receipt = forget(workspace, pa.array([], pa.string()), 8)
    store = workspace.tables.partitions
    assert {asset: store.days(asset)[0] for asset in ("behavior_table", "user_history", "user_activity")} == dict.fromkeys(
        ("behavior_table", "user_history", "user_activity"), DAYS[-8]
    )
    assert f"behavior_table/{DAYS[0]}" in receipt.expired
    with pytest.raises(InputError, match=f"expected days from {DAYS[-8]} on"):
        list(source.behavior_table(workspace, DAYS[:2]))
    worlds.run_steps(world, worlds.WINDOWED, [EVALUATION_DAY])


@needs_extras("iceberg_catalog")
def test_old_files_go_that_a_snapshot_lists(world):
    workspace = open_workspace(write_world(world.home.parent, {"storage": {"iceberg": {"tables": ["behavior"]}}}))
    load_extra("iceberg_catalog", "published_tables").PublishedTables(workspace).sync("behavior")
    forget(workspace, pa.array([], pa.string()), 8)
    days = {path.parent.name for path in Path(workspace.tables.partitions.root, "behavior").rglob("*.parquet")}
    assert min(days) == f"ds={DAYS[-8]}"


def test_dry_run_writes_nothing_and_the_receipt_has_no_ids(world, capsys):
    (world.home.parent / "ids.txt").write_text("\n".join(GONE.values()) + "\n", encoding="utf-8")
    arguments = ["forget", "--user-ids", str(world.home.parent / "ids.txt"), "--config", str(world.home.parent / "config.yaml")]
    arguments += ["--home", str(world.home)]
    before = {path: path.read_bytes() for path in world.home.rglob("*") if path.is_file()}
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert {path: path.read_bytes() for path in world.home.rglob("*") if path.is_file()} == before
    planned = capsys.readouterr().out
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    counts = next(line for line in planned.splitlines() if line.startswith("2 users are forgotten"))
    assert counts in printed
    (receipt,) = (world.home / "receipts").glob("*.json")
    content = json.loads(receipt.read_text(encoding="utf-8"))
    assert MARK not in planned + printed + receipt.read_text(encoding="utf-8")
    assert content["learned"][f"dssm_model/{EVALUATION_DAY}"] == "2024-01-13"
    assert {"item_activity", "feature_config"} < set(content["counts"])
    assert len(content["users"]) == 2


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_ids_are_found_by_hash_as_by_themselves(kind):
    forgotten = Forgotten(salt="0123456789abcdef")
    wanted = pa.array(["7", "12", "-3", "9223372036854775807", "name"])
    listed = Forgotten(forgotten.salt, forgotten.adding(wanted))
    column = pa.chunked_array([pa.array([7, 8, None, -3], pa.int64()), pa.array([12, 120, 2**63 - 1], pa.int64())]).cast(kind)
    expected = [True, False, False, True, True, False, True]
    assert listed.find(column).tolist() == expected
    assert Forgotten(listed.salt, listed.hashes, ids=wanted).find(column).tolist() == expected
    assert listed.find(column.combine_chunks().dictionary_encode()).tolist() == expected


def test_file_of_ids_is_checked(tmp_path: Path):
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "latin").write_bytes(b"\xff\n")
    for name in ("empty", "latin", "none"):
        with pytest.raises(InputError, match=rf"user ids {tmp_path / name}: expected .* To fix: write one id per line"):
            read_user_ids(tmp_path / name)
    (tmp_path / "ids").write_text("b\r\n\na\n", encoding="utf-8-sig")
    assert read_user_ids(tmp_path / "ids").to_pylist() == ["a", "b"]
    assert np.array_equal(Forgotten().find(pa.array(["a"])), [False])
