"""A service that searches in a store, while users are forgotten and bundles are published, refreshed and rolled back: no list is refused."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.extras.vector_stores.publish import on_served
from dssm_assets.extras.vector_stores.search import choose_search
from dssm_assets.extras.vector_stores.store import open_configured
from dssm_assets.installed_extras import load_extra
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.vector_stores.made_deltas import add_delta
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.service.http.servers import Client, serving

GONE, STAYS = "a0", "b1"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a world with a bundle; tests copy it."""
    folder = tmp_path_factory.mktemp("bundled") / "world"
    publish_bundle(open_workspace(worlds.built_world(tmp_path_factory).copy(folder)))
    return folder


def open_copy(bundled: Path, folder: Path, store: dict[str, object], log: Callable[[str], None] = print) -> Workspace:
    """Returns a copy of the world whose store has the bundle."""
    shutil.copytree(bundled, folder)
    workspace = open_workspace(worlds.write_config(folder, {"vector_store": store}), log)
    on_served(workspace.loaded, log)
    return workspace


def publish_other(workspace: Workspace, mark: str) -> str:
    """Publishes a bundle with another id; the store does not have it yet."""
    bundles, plain = open_bundles(workspace.loaded), PlainBundle(workspace)
    with bundles.staging() as folder:
        shutil.copytree(plain.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        body = {key: value for key, value in plain.manifest.items() if key not in ("format", "files", "was", "delta")}
        return bundles.publish(folder, {**body, "mark": mark}, 3).bundle_id


def make_list(engine: RecallEngine) -> list[str]:
    """Returns the list of a user from vectors alone."""
    return engine.recall_for_user(STAYS, ListOptions(20, lists=Lists.VECTORS)).item_ids


def find_nearest(workspace: Workspace) -> list[str]:
    """Returns the same list, by the vectors of the served bundle."""
    bundle = PlainBundle(workspace)
    user = np.array(bundle.vectors("user")[STAYS])
    scores = {item: float(user @ vector) for item, vector in bundle.vectors("item").items()}
    return sorted(scores, key=lambda item: -scores[item])[:20]


def forget(workspace: Workspace, *users: str) -> None:
    load_extra("retention", "forget").forget(workspace, pa.array(users))


@needs_extras("retention")
@pytest.mark.parametrize("kind", [pytest.param("lancedb", marks=pytest.mark.slow), "pgvector"])
def test_no_list_is_refused_while_bundles_come_and_go(
    bundled: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    uri = request.getfixturevalue("postgres")() if kind == "pgvector" else f"lancedb://{tmp_path}/lance"
    monkeypatch.setenv("VECTORS", uri)
    workspace = open_copy(bundled, tmp_path / "world", {"uri": "env:VECTORS", "tables": ["item", "user"]})
    loaded, bundles = workspace.loaded, open_bundles(workspace.loaded)
    live = LiveEngine(bundles.root, check_seconds=0.3, open_search=choose_search("", loaded))
    answers, is_over = Counter[int](), threading.Event()

    def ask(port: int) -> None:
        with closing(Client(port)) as client:
            while not is_over.is_set():
                answers[client.get(f"/recall?user_id={STAYS}&k=5&channels=vectors")[0]] += 1
                time.sleep(0.05)

    def wait_until_it_serves_what_is_served() -> None:
        limit, served = time.monotonic() + 20, PlainBundle(workspace).bundle_id
        while live.bundle_id != served:
            assert time.monotonic() < limit, live.state.bundle_fault
            time.sleep(0.02)

    with serving(live) as port:
        clients = [threading.Thread(target=ask, args=(port,)) for _ in range(2)]
        for client in clients:
            client.start()
        forget(workspace, GONE)
        wait_until_it_serves_what_is_served()
        for number in range(2):
            publish_other(workspace, f"mark {number}")
            time.sleep(0.4)  # the service looks, in vain
            on_served(loaded, print)
            wait_until_it_serves_what_is_served()
        width = len(PlainBundle(workspace).vectors("item")["a_00"])
        add_delta(workspace, a_00=np.arange(width))
        on_served(loaded, print)
        wait_until_it_serves_what_is_served()
        for to in (None, None):  # the bundle of the delta, and the one before it
            bundles.rollback(to)
            on_served(loaded, print)
        wait_until_it_serves_what_is_served()
        forget(workspace, "a1")
        wait_until_it_serves_what_is_served()
        is_over.set()
        for client in clients:
            client.join()
    assert set(answers) == {200}
    assert answers[200] > 20
    assert live.state.swaps >= 5


@needs_extras("retention")
def test_forgetting_writes_no_items_again(bundled: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    workspace = open_copy(bundled, tmp_path / "world", {"tables": ["item"]}, lines.append)
    first = PlainBundle(workspace).bundle_id
    assert len([line for line in lines if "is published to" in line]) == 1
    forget(workspace, GONE)
    second = PlainBundle(workspace).bundle_id
    assert (second != first, open_configured(workspace.loaded).find_versions()) == (True, {first: second})
    assert len([line for line in lines if "is published to" in line]) == 1, "the items are the same"
    engine = RecallEngine.open(open_bundles(workspace.loaded).root)
    assert make_list(engine.searching(choose_search("", workspace.loaded)(engine.bundle))) == find_nearest(workspace)


@needs_extras("retention")
def test_no_version_keeps_users_who_are_forgotten(bundled: Path, tmp_path: Path) -> None:
    """The version before the served one has a user, and goes."""
    workspace = open_copy(bundled, tmp_path / "world", {"tables": ["item", "user"]})
    first = PlainBundle(workspace).bundle_id
    for mark in ("one", "two"):
        publish_other(workspace, mark)
        on_served(workspace.loaded, print)
    store, served = open_configured(workspace.loaded), PlainBundle(workspace).bundle_id
    assert len(store.find_versions()) == 2
    forget(workspace, GONE)
    for version in store.find_versions():
        assert store.open(VectorTable.USER, version).read(pa.array([GONE, STAYS])).column("user_id").to_pylist() == [STAYS]
    with pytest.raises(PartitionMissingError):
        store.open(VectorTable.USER, first)
    assert store.find_versions() == {served: PlainBundle(workspace).bundle_id}


def test_two_versions_stay(bundled: Path, tmp_path: Path) -> None:
    workspace = open_copy(bundled, tmp_path / "world", {})
    versions = [PlainBundle(workspace).bundle_id]
    for mark in ("one", "two"):
        versions.append(publish_other(workspace, mark))
        on_served(workspace.loaded, print)
    store = open_configured(workspace.loaded)
    assert set(store.find_versions()) == set(versions[1:]), "the two whole bundles that were served last"
