"""A live engine takes over new bundles while clients send requests: none fails, and each answer is from one whole bundle."""

import logging
import os
import re
import shutil
import threading
import time
from contextlib import closing

import pytest

from dssm_assets.core.errors import DssmError, StorageError
from dssm_assets.installed_extras import find_extras
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.service.engine import live as live_module
from dssm_assets.service.engine import watches
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.service.http import api_keys
from dssm_assets.storage.hidden_list import HiddenList
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.servers import Client, key_line, serving, write_keys

SWAPS = 12
CLIENTS = 3


def write(root, number, **options):
    """Writes a bundle whose items and user vector depend on its number, so that a mixture of two bundles would show."""
    sign = 1.0 if number % 2 else -1.0
    items = {f"{number}_{name}": vector for name, vector in bundles.ITEMS.items()}
    return bundles.write_bundle(root, f"2024-01-{number:02d}", items=items, users={"u": (sign, 0.0)}, **options)


def expected_items(number):
    order = ["n0", "n2", "n1", "n3"] if number % 2 else ["n3", "n1", "n2", "n0"]
    return [f"{number}_{name}" for name in order]


def wait_until(condition, seconds=20.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition did not hold in time"
        time.sleep(0.005)


def test_refresh_swaps_to_a_new_bundle_once(tmp_path):
    first = write(tmp_path, 1).name
    live = LiveEngine(str(tmp_path))
    before = live.engine
    assert not live.refresh()
    second = write(tmp_path, 2).name
    assert live.refresh()
    assert not live.refresh()
    assert (live.bundle_id, before.bundle.bundle_id) == (second, first)
    assert before.recall_for_user("u", ListOptions(4)).item_ids == expected_items(1)
    assert live.engine.recall_for_user("u", ListOptions(4)).item_ids == expected_items(2)
    bundles.point_to(tmp_path, first)
    assert live.refresh()
    assert live.bundle_id == first


def test_folder_of_one_bundle_is_served_without_swaps(tmp_path):
    folder = write(tmp_path, 1)
    live = LiveEngine(str(shutil.copytree(folder, tmp_path / "copied")))
    assert live.bundle_id == folder.name
    assert not live.refresh()


@pytest.mark.parametrize("broken_file", ["item_index.faiss", "user_tower.onnx", "fg.json", "manifest.json"])
def test_broken_bundle_is_refused_and_the_old_one_keeps_serving(tmp_path, caplog, broken_file):
    first = write(tmp_path, 1).name
    live = LiveEngine(str(tmp_path))
    folder = write(tmp_path, 2)
    path = folder / broken_file
    path.write_bytes(path.read_bytes()[:-7] + b"garbage")
    with caplog.at_level(logging.ERROR):
        assert not live.refresh()
        assert not live.refresh()  # It is not tried again at once.
    assert (live.bundle_id, live.state.refused_bundle_id) == (first, folder.name)
    assert live.engine.recall_for_user("u", ListOptions(4)).item_ids == expected_items(1)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"refused bundle {folder.name}, {first} keeps serving"
    ]
    assert live.state.refusals == 1
    third = write(tmp_path, 3).name
    assert live.refresh()
    assert (live.bundle_id, live.state.refused_bundle_id) == (third, None)


def test_refused_bundle_is_tried_again_after_the_retry_time(tmp_path, monkeypatch):
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.0)
    write(tmp_path, 1)
    live = LiveEngine(str(tmp_path))
    folder = write(tmp_path, 2)
    path = folder / "item_index.faiss"
    content = path.read_bytes()
    path.unlink()
    assert not live.refresh()
    path.write_bytes(content)
    assert live.refresh()
    assert live.bundle_id == folder.name


def wait_for_ever(*_, **__):
    threading.Event().wait()


def test_a_watch_that_hangs_holds_up_no_other_and_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(watches, "LEAST_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(live_module, "FORGET_SECONDS", 0.01)
    write(tmp_path, 1)
    keys, lists = write_keys(tmp_path, key_line("k" * 16)), ShopLists()
    live = LiveEngine(str(tmp_path), check_seconds=0.01, shop_lists=lists)
    live.watches.add("the API keys", keys.refresh, 0.01)
    places = {
        "lists of the shop": (lists, "refresh"),
        "API keys": (api_keys, "read_keys"),
        "users to be forgotten": (HiddenList, "read"),
    }
    with serving(live, keys=keys) as port:
        assert Client(port).get("/health")[1]["status"] == "ok"
        for place, hanging in places.items():
            monkeypatch.setattr(*hanging, wait_for_ever)
            wait_until(lambda place=place: place in str(live.state.watch_fault))
        assert "bundles" not in live.state.watch_fault
        monkeypatch.setattr(BundleStore, "pointer", wait_for_ever)
        wait_until(lambda: "the bundles" in str(live.state.watch_fault))
        health = Client(port).get("/health")[1]
    assert (health["status"], health["list_fault"]) == ("stale", None)
    said = r"the bundles were read last at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, [1-9]\d* seconds ago, not every 0.01. To fix: .*; the lists of the shop"
    assert re.match(said, health["watch_fault"])


def test_lists_that_hang_hold_up_no_bundle(tmp_path, monkeypatch):
    write(tmp_path, 1)
    live = LiveEngine(str(tmp_path), check_seconds=0.01)
    monkeypatch.setattr(live._lists, "refresh", wait_for_ever)
    live.watches.start()
    second = write(tmp_path, 2).name
    wait_until(lambda: live.bundle_id == second)
    live.watches.stop()


@pytest.mark.parametrize("name", ["manifest.json", "item_index.faiss", "current.json"])
def test_a_pipe_in_place_of_a_file_holds_up_no_watch(tmp_path, name):
    first = write(tmp_path, 1).name
    live = LiveEngine(str(tmp_path))
    folder = tmp_path if name == "current.json" else write(tmp_path, 2)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    if name == "current.json":
        with pytest.raises(DssmError, match=r"current\.json is not a regular file"):
            live.refresh()
    else:
        assert not live.refresh()
        assert f"{name} is not a regular file" in live.state.bundle_fault
    assert live.bundle_id == first


def test_garbage_that_stays_shows_until_it_is_corrected(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watches, "LEAST_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(live_module, "FORGET_SECONDS", 0.01)
    first = write(tmp_path, 1).name
    keys = write_keys(tmp_path, key_line("k" * 16))
    live = LiveEngine(str(tmp_path), check_seconds=0.01)
    live.watches.add("the API keys", keys.refresh, 0.01)
    places = {"the bundles": "current.json", "the users to be forgotten": "forgotten.json", "the API keys": "keys.txt"}
    if "retention" not in find_extras():
        places.pop("the users to be forgotten")
    with serving(live, keys=keys) as port, closing(Client(port)) as client:
        for name, place in places.items():
            path = tmp_path / place
            before = path.read_bytes() if path.exists() else None
            (tmp_path / "garbage").write_text("<html>")
            (tmp_path / "garbage").replace(path)
            wait_until(lambda: client.get("/health")[1]["status"] == "stale")
            health = client.get("/health")[1]
            assert re.match(rf"{name} were read last at .*: \w+Error: .*{place}", health["watch_fault"])
            assert (health["bundle_id"], health["refused_bundle_id"], health["list_fault"]) == (first, None, None)
            path.unlink() if before is None else path.write_bytes(before)
            wait_until(lambda: client.get("/health")[1]["status"] == "ok")
    assert live.state.check_errors > 2, "the pointer and the users to be forgotten"
    assert [line for line in caplog.messages if "<html>" in line] == []
    assert len([line for line in caplog.messages if "current.json: not a pointer" in line]) == 1


def test_a_bundle_that_is_opened_for_long_is_no_watch_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(watches, "LEAST_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(live_module, "OPEN_SECONDS", 1.5)
    write(tmp_path, 1)
    live = LiveEngine(str(tmp_path), check_seconds=0.05)
    opened, is_opening = RecallEngine.open, threading.Event()

    def open_slowly(*arguments, **options):
        is_opening.set()
        time.sleep(0.8)
        return opened(*arguments, **options)

    monkeypatch.setattr(RecallEngine, "open", open_slowly)
    live.watches.start()
    second, faults = write(tmp_path, 2).name, []
    is_opening.wait(20)
    while live.bundle_id != second:
        faults.append(live.state.watch_fault)
        time.sleep(0.02)
    assert len(faults) > 10 and set(faults) == {None}
    monkeypatch.setattr(RecallEngine, "open", wait_for_ever)
    write(tmp_path, 3)
    wait_until(lambda: "the bundles were read last at" in str(live.state.watch_fault))
    live.watches.stop()


def test_unreadable_pointer_is_counted(tmp_path):
    first = write(tmp_path, 1).name
    live = LiveEngine(str(tmp_path))
    (tmp_path / "current.json").write_text("")
    with pytest.raises(StorageError, match="not a pointer to a bundle"):
        live.refresh()
    assert live.state.check_errors == 1
    assert live.bundle_id == first


def test_concurrent_clients_see_whole_bundles_and_no_error(tmp_path):
    write(tmp_path, 1)
    live = LiveEngine(str(tmp_path), check_seconds=0.01)
    wrong, seen, is_over = [], set(), threading.Event()

    def send_requests(port):
        with closing(Client(port)) as client:
            while not is_over.is_set():
                status, answer = client.get("/recall?user_id=u&k=4")
                number = int(answer["bundle_id"][8:10]) if status == 200 else 0
                if status != 200 or answer["item_ids"] != expected_items(number):
                    wrong.append((status, answer))
                seen.add(number)

    with serving(live) as port:
        clients = [threading.Thread(target=send_requests, args=(port,)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        wait_until(lambda: 1 in seen)
        for number in range(2, SWAPS + 2):
            folder = write(tmp_path, number, is_current=False)
            if number % 4 == 0:  # Clients must not notice a broken one in between.
                (folder / "item_index.faiss").unlink()
            bundles.point_to(tmp_path, folder.name)
            if number % 4 == 0:
                wait_until(lambda folder=folder: live.state.refused_bundle_id == folder.name)
            else:
                wait_until(lambda number=number: number in seen)
        is_over.set()
        for client in clients:
            client.join()
        health = Client(port).get("/health")[1]
        metrics = Client(port).get("/metrics")[1].splitlines()
    assert wrong == []
    good = {number for number in range(1, SWAPS + 2) if number % 4}
    assert seen == good
    assert health["bundle_id"] == folder.name
    assert f"dssm_bundle_swaps_total {len(good) - 1}.0" in metrics
    assert f"dssm_bundle_refused_total {SWAPS + 1 - len(good)}.0" in metrics
    assert not [line for line in metrics if line.startswith("dssm_request_errors_total{")]
