"""Deltas of the tiny world's bundle: new and changed items, users with events of the next day, and who may publish one.

The oracle of items is a whole bundle of the same model that is published after item_table and its features were materialized again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from dssm_assets.core.errors import (
    InputError,
    PartitionMissingError,
    PartitionReplacedError,
    ProvenanceError,
    SchemaError,
    StorageError,
)
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile
from dssm_assets.extras.bundle_delta.delta import DeltaCounts, publish_delta
from dssm_assets.extras.bundle_delta.fresh_days import FreshDays, open_fresh_days
from dssm_assets.service.bundle.bundle_store import BundleStore, open_bundles
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.steps import source
from dssm_assets.steps.features_raw import item_all_feature
from dssm_assets.steps.sample import item_features_fg
from dssm_assets.steps.source import behavior_table, item_table
from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.service.bundles import vector_of
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

TODAY = "2024-01-13"
NEXT_MS = worlds.start_ms(len(DAYS))
FILTERS = {"serving": {"filters": ["category", "stock"]}}
VECTORS_ALONE = ListOptions(20, lists=Lists.VECTORS)
BOUGHT_TODAY = ["a_03", "a_04", "a_07"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a world whose bundle has columns for filters; tests copy it."""
    folder = tmp_path_factory.mktemp("delta") / "world"
    publish_bundle(open_workspace(worlds.built_world(tmp_path_factory).copy(folder, FILTERS)))
    return folder


def copy_of(served: Path, target: Path, changes: Mapping[str, Any] = FILTERS) -> Workspace:
    shutil.copytree(served, target)
    return open_workspace(worlds.write_config(target, changes))


def change_sources(workspace: Workspace) -> None:
    """Adds z_00, a copy of a_00; moves a_09 to category b; sells out b_01; a0 buys today, and so do new users with and without profile."""
    folder = workspace.loaded.home.parent / "source"
    items = [{**row, "stock": 99 if row["item_id"] == "b_01" else row["stock"]} for row in worlds.item_rows()]
    items = [{**row, "category": "cat_b" if row["item_id"] == "a_09" else row["category"]} for row in items]
    worlds.write_rows(folder / "items.parquet", [*items, {"item_id": "z_00", "category": "cat_a", "stock": 5}])
    worlds.write_rows(folder / "users.parquet", [*worlds.user_rows(), {"user_id": "c0", "city": "city1"}])
    rows = worlds.log_rows(range(len(DAYS)))
    for user in ("a0", "c0", "c1"):
        for number, item in enumerate(BOUGHT_TODAY):
            row = {"user_id": user, "item_id": item, "price": 1.5, "page": "home", "event": "buy"}
            rows.append({**row, "ts": NEXT_MS + 3_600_000 + number * 1000})
    worlds.write_rows(folder / "behavior.parquet", rows)


@pytest.fixture(scope="module")
def refreshed(served: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, DeltaCounts]:
    workspace = copy_of(served, tmp_path_factory.mktemp("refreshed") / "world")
    change_sources(workspace)
    return workspace, publish_delta(workspace, TODAY).counts


@pytest.fixture(scope="module")
def whole(served: Path, tmp_path_factory: pytest.TempPathFactory) -> PlainBundle:
    """Returns the whole bundle of the same model and the items of today."""
    workspace = copy_of(served, tmp_path_factory.mktemp("whole") / "world")
    change_sources(workspace)
    for step in (item_table, item_all_feature, item_features_fg):
        assert list(step(workspace, [EVALUATION_DAY]))
    publish_bundle(workspace)
    return PlainBundle(workspace)


def test_counts_say_what_was_computed_again(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    # stock is a column for filters that no feature reads, so b_01 does not go through the tower.
    assert refreshed[1] == DeltaCounts(
        new_items=1, changed_items=1, gone_items=0, new_users=2, refreshed_users=1, events=3 * len(BOUGHT_TODAY)
    )


def test_changed_items_have_the_vectors_of_a_whole_bundle_and_others_keep_theirs(
    refreshed: tuple[Workspace, DeltaCounts], whole: PlainBundle, served: Path
) -> None:
    delta, expected = PlainBundle(refreshed[0]).vectors("item"), whole.vectors("item")
    assert delta.keys() == expected.keys() == {row["item_id"] for row in worlds.item_rows()} | {"z_00"}
    np.testing.assert_allclose(list(delta.values()), [expected[item] for item in delta], rtol=0, atol=1e-6)
    before = PlainBundle(open_workspace(worlds.load_config(served / "config.yaml", served / "home")))
    for side, changed in (("item", {"a_09", "z_00"}), ("user", {"a0", "c0", "c1"})):
        old, new = before.vectors(side), PlainBundle(refreshed[0]).vectors(side)
        assert {name for name in new if new[name] != old.get(name)} == changed
    assert new["c0"] != new["c1"], "one has a profile"


def test_rows_of_known_items_and_users_stay_and_new_ones_follow(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    opened = PlainBundle(refreshed[0])
    assert opened.table("item_ids.arrow").column("item_id").to_pylist() == [
        *sorted(row["item_id"] for row in worlds.item_rows()),
        "z_00",
    ]
    assert opened.table("user_vectors.arrow").column("user_id").to_pylist() == [*sorted(worlds.users()), "c0", "c1"]
    index = faiss.read_index(f"{opened.folder}/item_index.faiss")
    _, rows = index.search(np.array(list(opened.vectors("item").values()), np.float32), 1)
    assert rows[:, 0].tolist() == list(range(21))


def test_a_new_item_is_recalled_and_filters_know_it(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    engine = RecallEngine.open(open_bundles(refreshed[0].loaded).root)
    lists = {user: engine.recall_for_user(user, VECTORS_ALONE).item_ids for user in worlds.users()}
    # It has the attributes of a_00 and its category alone: nearer to users of group a than every item of group b.
    assert all(items.index("z_00") <= 10 for user, items in lists.items() if user[0] == "a")
    assert all(items.index("z_00") >= 9 for user, items in lists.items() if user[0] == "b")  # 10 items of group b
    merged = engine.recall_for_user("a1", ListOptions(21))
    assert merged.sources is not None
    assert "vectors" in merged.sources[merged.item_ids.index("z_00")]

    def passing(filters: Any) -> set[Any]:
        return set(engine.recall_for_user("a1", ListOptions(21, filters=filters)).item_ids)

    assert passing({"stock": 99}) == {"b_01"}
    assert passing({"stock": 1}) == {"a_01"}
    assert passing({"stock": 5}) == {"a_05", "b_05", "z_00"}
    assert passing({"category": "cat_b"}) == {f"b_{number:02d}" for number in range(10)} | {"a_09"}


def test_a_user_with_events_of_today_has_the_vector_of_a_request_with_that_history(
    refreshed: tuple[Workspace, DeltaCounts],
) -> None:
    """The service computes it from the bundle's own files and raw inputs."""
    workspace = refreshed[0]
    engine = RecallEngine.open(open_bundles(workspace.loaded).root)
    (raw,) = (
        row
        for row in workspace.tables.read(workspace.need("user_all_feature", EVALUATION_DAY)).to_pylist()
        if row["user_id"] == "a0"
    )
    items = [item for day in range(len(DAYS)) for item in worlds.bought("a0", day)] + BOUGHT_TODAY
    features = {name: raw[name] for name in ("city", "click_count_1d", "buy_count_3d", "category_preference")}
    # a_09 was bought while it had the category of its group.
    history = {"item_ids": items, "category": ["cat_a"] * len(items)}
    vector = vector_of(engine, UserInputs(features, history))
    np.testing.assert_allclose(PlainBundle(workspace).vectors("user")["a0"], vector, rtol=0, atol=1e-5)


def test_events_are_added_to_the_history_of_today(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    """As for users that have not changed: what is stored of each row is that of its vector."""
    engine = RecallEngine.open(open_bundles(refreshed[0].loaded).root)
    vectors = PlainBundle(refreshed[0]).vectors("user")
    new = {"item_ids": ["b_00"], "event_times_ms": [NEXT_MS + 80_000_000], "category": ["cat_b"]}
    known = {"item_ids": BOUGHT_TODAY[:1], "event_times_ms": [NEXT_MS + 3_600_000], "category": ["cat_a"]}
    for user in ("a0", "a1", "c0", "c1"):
        stored = vector_of(engine, UserInputs({"hour": None}), user)
        np.testing.assert_allclose(vectors[user], stored, rtol=0, atol=1e-5)
        assert np.abs(vectors[user] - vector_of(engine, UserInputs(events=new), user)).max() > 1e-3
    options = ListOptions(20)
    for user, is_known in (("a0", True), ("c0", True), ("a1", False)):
        answer = engine.recall(UserRequest(user_id=user, inputs=UserInputs(events=known), options=options))
        assert (answer.scores == pytest.approx(engine.recall_for_user(user, options).scores, abs=1e-4)) == is_known


def test_own_items_have_the_events_of_today(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    opened = PlainBundle(refreshed[0])
    items = opened.table("item_ids.arrow").column("item_id").to_pylist()
    rows = dict(
        zip(
            opened.table("user_vectors.arrow").column("user_id").to_pylist(),
            opened.table("own_items.arrow").to_pylist(),
            strict=True,
        )
    )

    def own(user: str) -> dict[str, tuple[int, int]]:
        row = rows[user]
        return {items[i]: (n, t) for i, n, t in zip(row["item_rows"], row["counts"], row["last_times_ms"], strict=True)}

    times = {item: NEXT_MS + 3_600_000 + number * 1000 for number, item in enumerate(BOUGHT_TODAY)}
    assert own("c0") == own("c1") == {item: (1, time) for item, time in times.items()}
    counts = [worlds.bought("a0", day) for day in range(len(DAYS))]
    expected = {item: sum(item in day for day in counts) + (item in times) for item in worlds_items("a")}
    assert {item: n for item, (n, _) in own("a0").items()} == expected
    assert {item: own("a0")[item][1] for item in BOUGHT_TODAY} == times
    assert own("a1")["a_03"][0] == sum("a_03" in worlds.bought("a1", day) for day in range(len(DAYS)))
    assert json.loads(Path(opened.folder, "channels.json").read_text())["now_ms"] == max(times.values()) + 1


def worlds_items(group: str) -> list[str]:
    return [row["item_id"] for row in worlds.item_rows() if row["item_id"][0] == group]


def test_files_that_do_not_change_are_those_of_the_whole_bundle(refreshed: tuple[Workspace, DeltaCounts]) -> None:
    store, opened = open_bundles(refreshed[0].loaded), PlainBundle(refreshed[0])
    base = opened.manifest["delta"]["base"]
    shared = [name for name in opened.manifest["files"] if Path(opened.folder, name).samefile(Path(store.folder(base), name))]
    assert shared == [
        "feature_config.parquet",
        "feature_counts.parquet",
        "fg.json",
        "item_tower.onnx",
        "popular_items.arrow",
        "towers.json",
        "user_tower.onnx",
    ]


def test_object_store_and_day_folders_give_the_same_delta(
    refreshed: tuple[Workspace, DeltaCounts], served: Path, tmp_path: Path
) -> None:
    root = f"bundle-delta-{tmp_path.name}"
    changes = {**FILTERS, "storage": {"root": f"memory://{root}"}, "tables": {"item": {"layout": "ds_folders"}}}
    changes["tables"]["item"]["uri"] = "{data}/source/items"
    workspace = copy_of(served, tmp_path / "world", changes)
    fs = workspace.tables.partitions.fs
    fs.put(f"{tmp_path}/world/home/tables/", f"/{root}/", recursive=True)
    change_sources(workspace)
    folder = tmp_path / "world/source/items"
    for ds in (DAYS[0], EVALUATION_DAY):
        worlds.write_rows(folder / f"ds={ds}/part.parquet", worlds.item_rows())
    before = publish_delta(workspace, TODAY)
    assert (before.counts.new_items, before.counts.new_users) == (0, 2), "no folder after the bundle's day"
    (folder / f"ds={TODAY}").mkdir()
    (tmp_path / "world/source/items.parquet").rename(folder / f"ds={TODAY}/part.parquet")
    result = publish_delta(workspace, "2024-01-14")
    assert result.counts == refreshed[1]
    assert result.published is not None
    assert result.published.bundle_id == PlainBundle(refreshed[0]).bundle_id
    open_bundles(workspace.loaded).fetch(result.published.bundle_id)
    assert fs.find(f"/{root}/_staging") == fs.find(f"/{root}/serving/_staging") == []
    fs.rm(f"/{root}", recursive=True)


def test_days_after_the_end_of_the_log_are_not_read(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()

    def note(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
        read.extend(days)
        return behavior_table(workspace, days)

    monkeypatch.setattr(source, "behavior_table", note)
    workspace = copy_of(served, tmp_path / "world")
    assert publish_delta(workspace, "2024-11-07").published is None
    assert read == [TODAY], "one day, as if today were the day after the bundle's"
    change_sources(workspace)
    assert publish_delta(workspace, "2024-11-07").counts.events == 3 * len(BOUGHT_TODAY)
    assert read == [TODAY, TODAY], "the log ends on it"


def test_a_service_takes_deltas_and_rollbacks_as_any_bundle(served: Path, tmp_path: Path) -> None:
    workspace = copy_of(served, tmp_path / "world")
    store = open_bundles(workspace.loaded)
    base = store.pointer().bundle_id  # type: ignore[union-attr]
    live = LiveEngine(store.root)
    assert publish_delta(workspace, TODAY).published is None, "nothing has changed"
    change_sources(workspace)
    first = publish_delta(workspace, TODAY).published
    assert first is not None
    assert (first.is_current, first.pointer.previous) == (True, base)
    assert live.refresh()
    assert (live.bundle_id, live.state.items, live.state.users) == (first.bundle_id, 21, 14)
    again = publish_delta(workspace, TODAY).published
    assert again is not None
    assert again.bundle_id == first.bundle_id, "the same sources give the same delta"
    worlds.write_rows(
        tmp_path / "world/source/items.parquet", [*worlds.item_rows()[1:], {"item_id": "z_01", "category": "cat_a", "stock": 5}]
    )
    result = publish_delta(workspace, TODAY)
    second = result.published
    assert second is not None
    # From the whole bundle again: z_00 has gone from the table before it was part of a whole bundle, a_00 stays as it was.
    assert (result.base, result.counts.new_items, result.counts.changed_items, result.counts.gone_items) == (base, 1, 0, 1)
    assert live.refresh()
    assert {"a_00", "z_01"} < set(PlainBundle(workspace).vectors("item"))
    assert second.pointer.stored == (base, first.bundle_id, second.bundle_id)
    assert store.rollback().bundle_id == first.bundle_id
    assert live.refresh()
    assert store.rollback().bundle_id == base
    assert live.refresh()
    assert live.state.items == 20
    assert publish_delta(workspace, TODAY).published.pointer.trail == (base, second.bundle_id)  # type: ignore[union-attr]
    publish_bundle(workspace)
    assert store.pointer().bundle_id == base  # type: ignore[union-attr]


def test_a_bundle_published_meanwhile_wins(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = copy_of(served, tmp_path / "world")
    change_sources(workspace)
    slower = open_workspace(workspace.loaded)
    seen: list[str] = []

    def publish_other(self: Any, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        other = publish_delta(workspace, TODAY).published
        assert other is not None
        seen.append(other.bundle_id)
        return self.publish(*arguments, **options)

    monkeypatch.setattr("dssm_assets.service.bundle.bundle_store.BundleStore.publish", publish_other)
    with pytest.raises(PartitionReplacedError, match=r"as when the delta began, got .*publish the delta again"):
        publish_delta(slower, TODAY)
    pointer = open_bundles(workspace.loaded).pointer()
    assert pointer is not None, "no bundle is served"
    assert [pointer.bundle_id] == seen
    assert list(Path(open_bundles(workspace.loaded).root, "_staging").iterdir()) == []


def test_what_cannot_be_refreshed_is_refused(served: Path, tmp_path: Path) -> None:
    workspace = copy_of(served, tmp_path / "world")
    store = open_bundles(workspace.loaded)
    base = store.pointer().bundle_id  # type: ignore[union-attr]
    rows = [{**row, "category": number, "stock": str(row["stock"])} for number, row in enumerate(worlds.item_rows())]
    worlds.write_rows(tmp_path / "world/source/items.parquet", rows)
    with pytest.raises(
        SchemaError,
        match=r"item_table, column category, read by features of items: expected string, as on 2024-01-12, got int64",
    ):
        publish_delta(workspace, TODAY)
    worlds.write_rows(tmp_path / "world/source/items.parquet", [{**row, "stock": "many"} for row in worlds.item_rows()])
    with pytest.raises(SchemaError, match=r"column stock, read by serving\.filters: expected int64"):
        publish_delta(workspace, TODAY)
    worlds.write_rows(tmp_path / "world/source/items.parquet", [{"item_id": "a_00", "stock": 1}])
    with pytest.raises(InputError, match="category"):
        publish_delta(workspace, TODAY)
    change_sources(workspace)
    inputs = dict(store.manifest(base)["inputs"])
    older = {key: digest for key, digest in inputs.items() if not key.startswith("user_table/")}
    for changed, version, match in (
        (older, CHANNELS_VERSION, "a bundle of this version, got format 2, without the digests of user_table/2024-01-12"),
        (
            {**inputs, f"dssm_model/{EVALUATION_DAY}": "0" * 64},
            CHANNELS_VERSION,
            f"input dssm_model/{EVALUATION_DAY}: .* built from, 0000",
        ),
        (inputs, 2, "channels of version 2"),
    ):
        publish_changed(store, base, changed, version)
        with pytest.raises(ProvenanceError, match=match):
            publish_delta(workspace, TODAY)
        store.rollback(base)
    workspace.tables.partitions.remove("dssm_model", EVALUATION_DAY)
    with pytest.raises(PartitionMissingError, match="dssm_model"):
        publish_delta(workspace, TODAY)
    assert store.pointer().bundle_id == base  # type: ignore[union-attr]
    store.fs.rm_file(f"{store.root}/current.json")
    with pytest.raises(PartitionMissingError, match=r"a bundle to refresh, got none.*materialize publish of DAY"):
        publish_delta(workspace, TODAY)


def publish_changed(store: BundleStore, bundle_id: str, inputs: Mapping[str, str], version: int) -> None:
    """Publishes a bundle again, with other inputs, and channels of a version."""
    with store.staging() as folder:
        shutil.copytree(store.folder(bundle_id), folder, dirs_exist_ok=True)
        body = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        channels = folder / str(BundleFile.CHANNELS)
        channels.write_text(json.dumps(json.loads(channels.read_text()) | {"version": version}))
        store.publish(folder, {**body, "inputs": inputs}, 3)


def test_a_damaged_base_is_refused(served: Path, tmp_path: Path) -> None:
    """A delta that replaces the vectors of a few users would hide that a byte has changed."""
    workspace = copy_of(served, tmp_path / "world")
    store = open_bundles(workspace.loaded)
    base, name = store.current_id(), str(BundleFile.USER_VECTORS)
    content = bytearray(Path(store.folder(base), name).read_bytes())
    content[len(content) // 2] ^= 1
    Path(store.folder(base), name).write_bytes(content)
    change_sources(workspace)
    with pytest.raises(StorageError, match=f"{name} has another sha256.*publish the bundle again"):
        publish_delta(workspace, TODAY)
    assert store.current_id() == base


def test_a_base_that_is_removed_meanwhile_is_a_typed_error(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_of(served, tmp_path / "world")
    change_sources(workspace)
    store = open_bundles(workspace.loaded)

    @contextmanager
    def remove_first(*arguments: Any) -> Iterator[FreshDays]:
        with open_fresh_days(*arguments) as fresh:
            store.remove(store.current_id())
            yield fresh

    monkeypatch.setattr("dssm_assets.extras.bundle_delta.delta.open_fresh_days", remove_first)
    with pytest.raises(
        PartitionReplacedError, match=r"its files, got a bundle that was removed meanwhile .*To fix: publish the delta again"
    ):
        publish_delta(workspace, TODAY)
