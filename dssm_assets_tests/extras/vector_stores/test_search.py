"""Lists from a vector store in place of the bundle's index: the same lists, filters and merge."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from dssm_assets.commands.command_groups import Commands
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import ConfigError, PartitionMissingError
from dssm_assets.extras.vector_stores import search
from dssm_assets.extras.vector_stores.bundle_rows import BundleRows
from dssm_assets.extras.vector_stores.search import StoreSearch, choose_search
from dssm_assets.extras.vector_stores.store import VectorStore, open_store
from dssm_assets.extras.vector_stores.testing import Opener
from dssm_assets.service.bundle.bundle_store import BundleStore, Pointer
from dssm_assets.service.commands import recall
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine
from dssm_assets_tests.service.bundles import ITEMS, write_bundle
from dssm_assets_tests.service.http.servers import Client, serving

ITEM_COUNT = 3000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a serving root with a bundle of 3,000 items of two dimensions and columns for filters."""
    root = tmp_path_factory.mktemp("serving")
    drawn = np.random.default_rng(3).standard_normal((ITEM_COUNT, 2))
    columns = pa.table(
        {
            "brand": pa.array([[None, "a", "b"][number % 3] for number in range(ITEM_COUNT)]).dictionary_encode(),
            "price": pa.array([number % 50 / 2 for number in range(ITEM_COUNT)]),
            "tags": pa.array([["x", "y"][: number % 3] for number in range(ITEM_COUNT)]),
        }
    )
    digests = {"dssm_model/2024-01-12": "digest"}
    write_bundle(
        root, items={f"p{number}": vector for number, vector in enumerate(drawn)}, item_columns=columns, inputs=digests
    )
    return str(root)


def fill(store: VectorStore, root: str) -> str:
    """Publishes the items of the current bundle to a store; returns the bundle's id."""
    bundles = BundleStore(root)
    bundle = bundles.fetch(bundles.current_id())
    draft = store.write(VectorTable.ITEM, BundleRows(bundle, VectorTable.ITEM).to_rows(lambda _: None))
    store.add(bundle.bundle_id, bundle.bundle_id, {VectorTable.ITEM: draft})
    store.serve(bundle.bundle_id)
    return bundle.bundle_id


def test_lists_equal_those_of_the_bundle_and_those_of_the_index_have_most_of_them(opened: Opener, root: str) -> None:
    fill(opened(), root)
    filled, engine = opened(), RecallEngine.open(root)
    by_index = engine.searching(StoreSearch(filled, engine.bundle))
    exact, found = (one.recall_for_user("u", ListOptions(200)).item_ids for one in (engine, by_index))
    assert len(found) == len(exact)
    assert len(set(found) & set(exact)) >= 0.95 * len(exact)
    by_store = engine.searching(StoreSearch(filled, engine.bundle, is_exact=True))
    shown = np.arange(ITEM_COUNT) % 4 > 0
    for own, other in ((engine, by_store), (engine.showing(shown), by_store.showing(shown))):
        options = ListOptions(50, exclude=["p7"])
        for user in ("u", "v"):
            expected, found = own.recall_for_user(user, options), other.recall_for_user(user, options)
            assert found.item_ids == expected.item_ids
            assert found.scores == pytest.approx(expected.scores, rel=1e-5)
        assert other.similar_items("p3", ListOptions(5)).item_ids == own.similar_items("p3", ListOptions(5)).item_ids


@pytest.fixture
def lance(tmp_path: Path) -> str:
    return f"lancedb://{tmp_path}/lance"


class NeverAsked:
    def find_rows(self, vectors: np.ndarray, k: int) -> list[np.ndarray]:
        raise AssertionError("the store was asked")


def test_lists_with_filters_are_those_of_the_bundle(root: str) -> None:
    engine = RecallEngine.open(root)
    options = ListOptions(50, filters={"brand": "b"})
    unasked = engine.searching(NeverAsked())
    assert unasked.recall_for_user("u", options) == engine.recall_for_user("u", options)


def open_engine(root: str, uri: str) -> RecallEngine:
    engine = RecallEngine.open(root)
    return engine.searching(choose_search(uri, None)(engine.bundle))


def test_merged_lists_are_the_same(tmp_path: Path, lance: str) -> None:
    write_bundle(tmp_path, has_channels=True, stores_inputs=True, inputs={"dssm_model/2024-01-12": "digest"})
    fill(choose_store(lance), str(tmp_path))
    own, other = RecallEngine.open(str(tmp_path)), open_engine(str(tmp_path), lance)
    for lists in Lists:
        expected, found = (one.recall_for_user("u", ListOptions(4, lists=lists)) for one in (own, other))
        assert (found.item_ids, found.sources) == (expected.item_ids, expected.sources)


def test_items_that_only_the_store_has_are_left_out(tmp_path: Path, lance: str) -> None:
    digests = {"dssm_model/2024-01-12": "digest"}
    write_bundle(tmp_path / "more", items={**ITEMS, "n9": (9.0, 0.0)}, inputs=digests)
    folder = write_bundle(tmp_path / "less", inputs=digests)
    bundle = BundleStore(str(tmp_path / "more"))
    store = choose_store(lance)
    rows = BundleRows(bundle.fetch(bundle.current_id()), VectorTable.ITEM)
    store.add(folder.name, folder.name, {VectorTable.ITEM: store.write(VectorTable.ITEM, rows.to_rows(print))})
    assert open_engine(str(tmp_path / "less"), lance).recall_for_user("u", ListOptions(4)).item_ids == ["n0", "n2", "n1", "n3"]


def choose_store(uri: str) -> VectorStore:
    return open_store(uri, "hand", {})


def test_a_service_takes_a_new_bundle_once_the_store_has_it(
    tmp_path: Path, lance: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(tmp_path / "serving")
    write_bundle(tmp_path / "serving", "2024-01-12", inputs={"dssm_model/2024-01-12": "one"})
    first = fill(choose_store(lance), root)
    live = LiveEngine(root, open_search=choose_search(lance, None))
    second = write_bundle(tmp_path / "serving", "2024-01-13", inputs={"dssm_model/2024-01-13": "two"}).name
    for _ in range(3):
        assert not live.refresh()
    assert (live.bundle_id, live.state.refused_bundle_id, live.state.refusals) == (first, second, 1)
    assert "expected vectors of bundle 2024-01-13" in (live.state.bundle_fault or "")
    assert len(caplog.messages) == 1, "each look asks, and the first one says it"
    pointer = Pointer((first, second), (first, second), "2024-01-13")
    (tmp_path / "serving" / "current.json").write_text(pointer.to_json())
    started = LiveEngine(root, open_search=choose_search(lance, None))
    assert started.bundle_id == first, "a service that starts meanwhile"
    fill(choose_store(lance), root)
    assert (live.refresh(), started.refresh()) == (True, True)
    assert (live.bundle_id, started.bundle_id, live.state.refused_bundle_id) == (second, second, None)
    assert live.engine.recall_for_user("u", ListOptions(2)).item_ids == ["n0", "n2"]


def test_a_version_that_was_written_again_is_opened_again(opened: Opener, root: str) -> None:
    engine, store = RecallEngine.open(root), opened()
    fill(store, root)
    by_store = engine.searching(StoreSearch(opened(), engine.bundle, is_exact=True))
    fill(store, root)
    for name in store.find_removable([], before=time.time() + 60):
        store.remove(name)
    assert by_store.recall_for_user("u", ListOptions(20)).item_ids == engine.recall_for_user("u", ListOptions(20)).item_ids


def test_a_service_without_its_store_says_try_again_later(root: str, lance: str) -> None:
    fill(choose_store(lance), root)
    live = LiveEngine(root, open_search=choose_search(lance, None))
    shutil.rmtree(lance.removeprefix("lancedb://"))
    with serving(live) as port:
        status, content = Client(port).get("/recall?user_id=u&k=3")
    assert (status, content["error"]) == (503, "StorageError")


@pytest.mark.parametrize("is_frozen", [False, True], ids=["locked", "frozen"])
def test_a_store_that_hangs_refuses_its_lists_in_time_and_no_others(
    root: str, postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch, is_frozen: bool
) -> None:
    """Another session has locked the table, or all processes of the server are stopped."""
    monkeypatch.setattr(search, "_LATE_SECONDS", 0.5)
    monkeypatch.setattr(search, "_PAUSE_SECONDS", 1.5)
    uri, seconds, by_id, unknown = postgres(), 6.0, "/recall?user_id=u&k=3", "/recall?user_id=nobody&k=3"
    fill(choose_store(uri), root)
    live = LiveEngine(root, open_search=partial(choose_search(uri, None), seconds=seconds))
    with serving(live, ServiceLimits(request_seconds=seconds), threads=2) as port, hanging(uri, is_frozen=is_frozen) as end:
        clients = [Client(port) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            begun = time.monotonic()
            first = [
                pool.submit(client.get, path) for client, path in zip(clients, [by_id, by_id, by_id, unknown], strict=True)
            ]
            assert Client(port).get("/health")[0] == 200
            assert [one.result()[0] for one in first] == [503, 503, 503, 200]
            assert time.monotonic() - begun < seconds + 1
        client = clients[0]
        begun = time.monotonic()
        assert [client.get(path)[0] for path in (unknown, by_id, unknown, by_id, unknown)] == [200, 503, 200, 503, 200]
        assert time.monotonic() - begun < 1, "none of them waited for the store"
        status, batch = client.send("POST", "/recall/batch", {"requests": [{"user_id": "nobody"}, {"user_id": "u"}]})
        assert (status, batch["error"]) == (503, "StorageError")
        end()
        limit = time.monotonic() + 10
        while client.get(by_id)[0] != 200:
            assert time.monotonic() < limit, "it is asked again once it answers"
            time.sleep(0.1)


@contextmanager
def hanging(uri: str, *, is_frozen: bool) -> Iterator[Callable[[], None]]:
    """Lets searches hang; yields what ends that."""
    with psycopg.connect(uri) as connection:
        stopped: list[int] = []
        if is_frozen:
            own = "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int UNION SELECT pid FROM pg_stat_activity"
            stopped = [pid for (pid,) in connection.execute(own)]
        else:
            ((table,),) = connection.execute("SELECT tables ->> 'item' FROM hand_vector_versions").fetchall()
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

        def end() -> None:
            for pid in stopped:
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(pid, signal.SIGCONT)
            connection.rollback()

        try:
            yield end
        finally:
            end()


def test_a_revision_that_the_store_does_not_have_yet_is_refused(root: str, lance: str) -> None:
    store, bundle_id = choose_store(lance), fill(choose_store(lance), root)
    store.update(bundle_id, f"{bundle_id[:10]}-dddddddddddd", {})
    with pytest.raises(PartitionMissingError, match=f"expected vectors of bundle {bundle_id}, got those of .*dddddddddddd"):
        choose_search(lance, None)(RecallEngine.open(root).bundle)


def test_the_command_asks_the_store(root: str, lance: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> Any:
        parser = argparse.ArgumentParser()
        recall.add_command(Commands(parser))
        parsed = parser.parse_args(["recall", "--bundle", root, "--user-id", "u", "-k", "5", "--json", *arguments])
        parsed.command(parsed)
        return json.loads(capsys.readouterr().out)

    with pytest.raises(PartitionMissingError, match="materialize vector_store"):
        run("--store", lance)
    fill(choose_store(lance), root)
    assert run("--store", lance) == run()
    with pytest.raises(ConfigError, match="--store"):
        run("--store")
