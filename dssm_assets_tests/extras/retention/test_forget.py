"""Forgetting two of the twelve users of a world with every kind of table, and a bundle."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets import cli
from dssm_assets.core.errors import InputError, PartitionReplacedError, SignatureError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features_raw.raw_feature_tables import BEHAVIOR
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.defs.asset_factory import run_step
from dssm_assets.extras.retention import leftovers
from dssm_assets.extras.retention.forget import UnfinishedRequestError, check_ended, forget, on_run_start
from dssm_assets.extras.retention.forgotten import Forgotten, change_list
from dssm_assets.extras.retention.user_ids import read_user_ids
from dssm_assets.installed_extras import load_extra
from dssm_assets.service.bundle.bundle_store import SIGNING_KEY, open_bundles
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.steps import features_raw, source, statistics
from dssm_assets.steps.previous_day import find_features_of_positives
from dssm_assets.steps.workspace import is_current, open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.retention import auditor
from dssm_assets_tests.extras.retention.forgetting import (
    GONE,
    HASHES,
    MARK,
    OWN,
    built_world,
    find_marks,
    let_an_hour_pass,
)
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

IDS = pa.array(sorted(GONE.values()))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_world(tmp_path_factory)


@pytest.fixture
def world(built, tmp_path):
    shutil.copytree(built, tmp_path / "world", symlinks=True)
    return load_config(tmp_path / "world" / "config.yaml", tmp_path / "world" / "home")


@pytest.fixture
def workspace(world):
    return open_workspace(world)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def audit(folder):
    return auditor.find_marks(folder, [MARK], HASHES)


def manifests(workspace):
    store = workspace.tables.partitions
    return {one.key: one for asset in store.assets() for ds in store.days(asset) if (one := store.find(asset, ds))}


def test_auditor_finds_nothing_that_the_receipt_does_not_name(world, workspace):
    """As text, in dictionaries, in a linked file, in a csv file, as a feature, in a linked day; in a home that was moved since."""
    linked = Path(workspace.tables.partitions.root, f"user_history/ds={DAYS[0]}")
    linked.symlink_to(linked.rename(world.home / "elsewhere"))
    folder, before, vectors = world.home.parent, manifests(workspace), PlainBundle(workspace).vectors("user")
    sources = [folder / "source" / "users.parquet", world.home / "source" / "behavior.csv"]
    texts = [path.read_bytes() for path in sources]
    assert len(audit(folder)) > 150
    receipt = forget(workspace, IDS)
    found = audit(folder)
    # Sources are only read, also the one behind a link, and named
    assert [path.read_bytes() for path in sources] == texts
    assert (world.home / "source" / "linked.parquet").is_symlink()
    assert [place.rpartition(", ")[2] for place in receipt.sources] == [
        str(world.home / "source" / name) for name in ("linked.parquet", "behavior.csv")
    ]
    with_ids = {path for path, marks in found.items() if MARK in marks}
    assert with_ids == {"source/users.parquet", "home/source/behavior.csv"}
    # Hashes of values stay where the receipt says, and nowhere else
    assert {"uid", "mail"} < {*receipt.features[Kind.CATEGORICAL]}
    named = {name.split()[name.startswith("bundle ")] for name in receipt.values[Kind.CATEGORICAL]}
    assert named == {"category_value_counts", "feature_counts", *receipt.bundles.values()}
    hashed = [path for path, marks in found.items() if MARK not in marks]
    assert {next(one for one in named if f"/{one}/" in path) for path in hashed} == named
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
    # The remedy that the receipt names is one
    for step in (statistics.category_value_counts, statistics.feature_counts):
        list(step(workspace, workspace.tables.partitions.days(step.__name__)))
    list(leftovers.clean(workspace, 0.0))
    kept = {path for path in audit(folder) if "source/" not in path}
    assert kept == {f"home/tables/serving/bundles/{bundle.bundle_id}/feature_counts.parquet"}
    assert forget(workspace, IDS[:1], dry_run=True).values == {}


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


def test_samples_and_lineage_of_others_hold(workspace):
    counts = {ds: workspace.tables.read(workspace.need("numeric_value_counts", ds)) for ds in DAYS[1:3]}
    before = read_samples(workspace)
    forget(workspace, IDS)
    assert all(is_current(workspace, manifest) for manifest in manifests(workspace).values())
    assert read_samples(workspace) == [sample for sample in before if sample[0] not in GONE.values()]
    assert len(before) == 12 * 3 * worlds.WINDOW_DAYS
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
    check_late_rows_are_dropped_and_states_of_items_are_rebuilt(workspace)


def check_late_rows_are_dropped_and_states_of_items_are_rebuilt(workspace):
    days = DAYS[-2:]
    for step in (source.behavior_table, source.user_table, source.item_table, features_raw.behavior):
        list(step(workspace, days))
    (of_users, _), (of_items, _) = (step(workspace, days) for step in (features_raw.user_activity, features_raw.item_activity))
    methods = [of_users.facts["state"], of_items.facts["state"]]
    assert methods == ["rolled", f"rebuilt from {len(DAYS) - 1} days"]
    assert find_marks(workspace.loaded.home) == []
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
    assert find_marks(world.home) == []


def test_run_that_is_refused_removes_no_file_that_is_listed(world):
    tables = open_workspace(world).tables
    manifest = tables.partitions.need("behavior", DAYS[0])
    rows = tables.read(manifest)
    part = tables.put_part(BEHAVIOR, DAYS[0], 0, rows.schema, rows.to_batches())
    change_list(tables.partitions.hidden, lambda now: Forgotten(salt=now.salt, state="another"))
    with pytest.raises(PartitionReplacedError, match="the forgotten users"):
        tables.publish_parts(BEHAVIOR, DAYS[0], [part], schema=rows.schema)
    assert tables.read(manifest).equals(rows)


def test_service_treats_them_as_unknown_within_a_second(world, workspace):
    live = LiveEngine(open_bundles(world).root, check_seconds=3600)
    live.watches.start()
    users = live.engine.bundle.users
    assert users.find_row(IDS[0].as_py()) >= 0
    change_list(workspace.tables.partitions.hidden, lambda now: Forgotten(salt=now.salt, hashes=now.adding(IDS)))
    time.sleep(1.0)
    assert [users.find_row(user) for user in IDS.to_pylist()] == [-1, -1]
    assert users.find_row("a0") >= 0
    live.watches.stop()


def test_killed_request_is_ended_by_the_next_run(world, workspace):
    change_list(
        workspace.tables.partitions.hidden, lambda now: Forgotten(salt=now.salt, hashes=now.adding(IDS), request="cut short")
    )
    assert find_marks(world.home)
    on_run_start(workspace)
    assert find_marks(world.home) == []
    assert workspace.tables.partitions.hidden.read().request == ""
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
    assert find_marks(world.home)
    on_run_start(open_workspace(world))
    assert find_marks(world.home) == []


def test_damaged_files_hold_up_no_run_that_replaces_them(world, workspace):
    manifest = workspace.need("behavior", DAYS[0])
    Path(workspace.tables.paths([manifest])[0]).write_bytes(b"PAR1")
    Path(PlainBundle(workspace).folder, "user_vectors.arrow").write_bytes(b"x")
    receipt = forget(workspace, IDS)
    with pytest.raises(UnfinishedRequestError, match=f"behavior/{DAYS[0]}.*bundle {EVALUATION_DAY}.*run dssm-assets forget"):
        check_ended(receipt)
    assert receipt.describe()[-1] == "the request has not ended: dssm-assets forget, or a run an hour later, goes on with it"
    let_an_hour_pass(workspace)
    on_run_start(workspace)
    assert workspace.tables.partitions.hidden.read().request
    list(features_raw.behavior(open_workspace(world), DAYS[:1]))
    publish_bundle(open_workspace(world))
    let_an_hour_pass(workspace)
    on_run_start(workspace)
    assert not workspace.tables.partitions.hidden.read().request
    assert find_marks(world.home) == []


def test_list_that_nobody_can_read_stops_no_run_at_its_start(world):
    lines = []
    workspace = open_workspace(world, lines.append)
    Path(workspace.tables.partitions.hidden.path).write_text("{")
    on_run_start(workspace)
    assert "the request to forget users goes on later, and this run begins: StorageError: " in lines[0]


@needs_extras("signatures")
def test_without_the_key_of_signed_bundles_nothing_is_changed(world, tmp_path, monkeypatch):
    key = tmp_path / "key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    monkeypatch.setenv(SIGNING_KEY, str(key))
    publish_bundle(open_workspace(world))
    monkeypatch.delenv(SIGNING_KEY)
    before = content(world.home)
    for change in (lambda: forget(open_workspace(world), IDS), lambda: publish_bundle(open_workspace(world))):
        with pytest.raises(SignatureError, match=r"DSSM_SIGNING_KEY: expected the file of a key, .*To fix: set it; or, "):
            change()
        assert content(world.home) == before
    monkeypatch.setenv(SIGNING_KEY, str(key))
    forget(open_workspace(world), IDS)
    (folder,) = (path for path in Path(open_bundles(world).root, "bundles").iterdir())
    open_bundles(world).fetch(folder.name)


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
    # the window of 6 days and a history of all days; the state of a day is made from the day before
    assert {"train_samples", "user_activity", f"bundle {open_bundles(workspace.loaded).current_id()}"} < {
        *receipt.reaching_back
    }
    assert {"behavior", "user_history", "user_table"}.isdisjoint(receipt.reaching_back)
    with pytest.raises(InputError, match=f"expected days from {DAYS[-8]} on"):
        list(source.behavior_table(workspace, DAYS[:2]))
    worlds.run_steps(world, worlds.WINDOWED, [EVALUATION_DAY])


def test_users_and_old_days_in_one_request_are_told_as_far_as_is_known(world, workspace):
    """A user has rows on the first day alone, which goes unread: in a request for both, and in one for users that another joins."""
    rows, once = workspace.tables.read(workspace.need("behavior", DAYS[0])), pa.array(["once"])
    own = rows.slice(0, 1).set_column(rows.schema.get_field_index("user_id"), "user_id", [once])
    workspace.tables.write(BEHAVIOR, DAYS[0], pa.concat_tables([rows, own]))
    planned = forget(workspace, once, 8, dry_run=True)
    assert (planned.ids, planned.without_rows, "item_activity" in planned.counts) == (1, 0, True)
    assert forget(workspace, once[:0], 8, dry_run=True).counts == []
    change_list(
        workspace.tables.partitions.hidden,
        lambda now: Forgotten(salt=now.salt, hashes=now.adding(once), first_day=DAYS[-8], request="cut short"),
    )
    on_run_start(workspace)
    (receipt,) = (json.loads(path.read_text()) for path in (world.home / "receipts").iterdir())
    assert (receipt["users"], receipt["expired"], receipt["counts"]) == (1, planned.expired, planned.counts)


@needs_extras("iceberg_catalog")
def test_old_files_go_that_a_snapshot_lists_once_the_catalog_is_there(world):
    lines = []
    loaded = worlds.write_config(world.home.parent, worlds.merged(OWN, {"storage": {"iceberg": {"tables": ["behavior"]}}}))
    workspace = open_workspace(loaded, lines.append)
    load_extra("iceberg_catalog", "published_tables").PublishedTables(workspace).sync("behavior")
    database = world.home / "iceberg.db"
    assert any("_iceberg" in path for path in find_marks(world.home)), "least and greatest ids of files"
    stored = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    receipt = forget(workspace, IDS, 8)
    assert "key storage.iceberg" in receipt.faults[0]
    assert {path.split("/")[1] for path in find_marks(world.home)} == {"_iceberg"}
    list(leftovers.clean(workspace, 0.0))
    assert any(line.startswith("not cleaned: StorageError: key storage.iceberg") for line in lines)
    let_an_hour_pass(workspace)
    on_run_start(workspace)
    assert workspace.tables.partitions.hidden.read().request
    database.write_bytes(stored)
    let_an_hour_pass(workspace)
    on_run_start(workspace)
    assert not workspace.tables.partitions.hidden.read().request
    assert find_marks(world.home) == []
    days = {path.parent.name for path in Path(workspace.tables.partitions.root, "behavior").rglob("*.parquet")}
    assert min(days) == f"ds={DAYS[-8]}"
    without = worlds.write_config(world.home.parent, OWN)
    assert forget(open_workspace(without), IDS[:1], dry_run=True).elsewhere == [f"Iceberg catalog {database}"]


def test_dry_run_writes_nothing_and_the_receipt_has_no_ids(world, capsys):
    (world.home.parent / "ids.txt").write_text("\n".join([*GONE.values(), "nobody"]) + "\n", encoding="utf-8")
    arguments = ["forget", "--user-ids", str(world.home.parent / "ids.txt"), "--config", str(world.home.parent / "config.yaml")]
    arguments += ["--home", str(world.home)]
    before = content(world.home)
    assert cli.main([*arguments, "--dry-run"]) == 3
    assert content(world.home) == before
    planned = capsys.readouterr().out
    assert cli.main(arguments) == 3
    printed = capsys.readouterr().out
    assert "3 users would be forgotten; 1,241 rows of theirs in 161 partitions" in planned
    assert "3 users are forgotten; 1,241 rows of theirs in 161 partitions" in printed
    for text in (planned, printed):
        assert "1 of 3 ids have no row anywhere in this home" in text
        assert f"dssm_model/{EVALUATION_DAY} has, or may have, learned from them, until it is made again" in text
        assert "reports of total_hit_rate, each with five people (evaluation.show_people)" in text
    (receipt,) = (world.home / "receipts").glob("*.json")
    text = receipt.read_text(encoding="utf-8")
    assert MARK not in planned + printed + text
    assert {"item_activity", "negative_items"} < set(json.loads(text)["counts"])
    listed = open_workspace(world).tables.partitions.hidden.read()
    assert len(listed.hashes) == 3
    assert not any(one in text for one in listed.hashes), "the salt is beside them"
    assert cli.main(arguments) == 0
    assert "3 of 3 ids were on the list before" in capsys.readouterr().out


def test_what_learned_from_nobody_of_them_is_not_named(world, workspace):
    receipt = forget(workspace, pa.array(["nobody"]))
    assert (receipt.ids, receipt.without_rows, receipt.rows) == (1, 1, 0)
    assert (receipt.learned, receipt.values, receipt.counts) == ({}, {}, [])


@pytest.mark.parametrize(("end", "day"), [("2024-01-25", None), ("2024-01-26", "2024-01-26"), (None, "2024-01-26")])
def test_day_of_removal_is_one_that_comes(workspace, end, day):
    """14 days are kept, so 2024-01-12 goes when 2024-01-26 is stored."""
    kept = worlds.changed(
        worlds.changed(workspace, "storage", keep_days={"training": 14}), "calendar", end=end and dt.date.fromisoformat(end)
    )
    assert forget(kept, IDS, dry_run=True).learned[f"dssm_model/{EVALUATION_DAY}"] == day


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_ids_are_found_by_hash_as_by_themselves(kind):
    forgotten = Forgotten(salt="0123456789abcdef")
    wanted = pa.array(["7", "12", "-3", "9223372036854775807", "name"])
    listed = Forgotten(salt=forgotten.salt, hashes=forgotten.adding(wanted))
    column = pa.chunked_array([pa.array([7, 8, None, -3], pa.int64()), pa.array([12, 120, 2**63 - 1], pa.int64())]).cast(kind)
    expected = [True, False, False, True, True, False, True]
    assert listed.find(column).tolist() == expected
    assert [one is not None and listed.hides(one) for one in column.to_pylist()] == expected
    assert Forgotten(salt=listed.salt, hashes=listed.hashes, ids=wanted).find(column).tolist() == expected
    assert listed.find(column.combine_chunks().dictionary_encode()).tolist() == expected


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Three days of a world whose users are integers: 10**15 + 1 to 10**15 + 12."""
    folder = tmp_path_factory.mktemp("numbered")
    loaded = worlds.write_world(folder)
    number = {user: 10**15 + place for place, user in enumerate(worlds.users(), 1)}
    for name, rows in (("users", worlds.user_rows()), ("behavior", worlds.log_rows(range(3)))):
        of_numbers = [{**row, "user_id": number[row["user_id"]]} for row in rows]
        worlds.write_rows(folder / "source" / f"{name}.parquet", of_numbers)
    worlds.run_steps(loaded, worlds.DAILY, DAYS[:3])
    return folder


def test_integer_ids_are_read_as_a_request_reads_them(numbered, tmp_path, capsys):
    ids, own = tmp_path / "ids.txt", [10**15 + 3, 10**15 + 5, 10**15 + 8]
    arguments = ["forget", "--user-ids", str(ids), "--config", str(numbered / "config.yaml"), "--home", str(numbered / "home")]
    ids.write_text(f"user_id\n{own[0]}.0\n{own[1]}\n\nanna\n{2**63}\n")
    assert cli.main(arguments) == 1
    shown = capsys.readouterr().err
    assert (
        "expected one integer id per line, like the ids of this home, got 4 lines with other text: 1, 2, 5, 6. To fix" in shown
    )
    assert "anna" not in shown
    assert not (numbered / "home" / "tables" / "serving" / "forgotten.json").exists()
    assert auditor.find_marks(numbered / "home", numbers=own)
    ids.write_text(f" {own[0]} \n\"{own[1]}\"\r\n\t'{own[2]}'\n777\n0{own[0]}\n")
    assert cli.main(arguments) == 3
    printed = capsys.readouterr().out
    # 3 days of 3 buys, and of user n (from 0) 1 + (n + d) mod 3 clicks: 6 over three days
    assert "4 users are forgotten" in printed
    assert "behavior_table/" not in printed
    assert "1 of 4 ids have no row anywhere in this home; they are on the list all the same" in printed
    assert "learned" not in printed
    (receipt,) = (numbered / "home" / "receipts").glob("*.json")
    assert sum(json.loads(receipt.read_text())["partitions"][f"behavior/{ds}"]["rows"] for ds in DAYS[:3]) == 3 * (9 + 6)
    assert auditor.find_marks(numbered / "home", numbers=own) == {}
    assert set(auditor.find_marks(numbered / "source", numbers=own)) == {"behavior.parquet", "users.parquet"}
    assert str(numbered / "source" / "behavior.parquet") in printed


def test_file_of_ids_is_checked(workspace, tmp_path: Path):
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "latin").write_bytes(b"\xff\n")
    for name in ("empty", "latin", "none"):
        with pytest.raises(InputError, match=rf"user ids {tmp_path / name}: expected .* To fix: write one id per line"):
            read_user_ids(tmp_path / name, workspace)
    (tmp_path / "ids").write_text("b\r\n\n a\n'c'\n03.0\n", encoding="utf-8-sig")
    assert read_user_ids(tmp_path / "ids", workspace).to_pylist() == ["03.0", "a", "b", "c"]
    (tmp_path / "ids").write_text("user_id\na\n")
    with pytest.raises(
        InputError, match=r"one text id per line, like the ids of this home, got 1 line with other text: 1\. To"
    ):
        read_user_ids(tmp_path / "ids", workspace)
    assert np.array_equal(Forgotten().find(pa.array(["a"])), [False])
