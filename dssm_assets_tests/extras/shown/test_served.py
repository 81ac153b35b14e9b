"""Answers by variants, kept as rows: over HTTP and from Python, and what was shown in their place."""

from __future__ import annotations

import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import dssm_assets.stored
from dssm_assets.core.config.evaluation import Serving
from dssm_assets.core.hidden_rows import HiddenRows
from dssm_assets.extras.shown import served as module
from dssm_assets.extras.shown.variants import choose_variation, hash_person, ranges_of_shares
from dssm_assets.service.bundle.bundle_store import Pointer
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import UserRequest, open_hook
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.service.http.answers import ARROW
from dssm_assets.storage.hidden_list import HiddenList
from dssm_assets_tests.extras.shown.shops import VARIANTS, find_parts, make_hook, read_rows, served_by_process, write_shop
from dssm_assets_tests.service.bundles import write_bundle
from dssm_assets_tests.service.engine.hand_tower import ITEMS
from dssm_assets_tests.service.http.servers import Client, key_line, serving, write_keys


def group_of(person: str, name: str = "hand") -> str:
    position = choose_variation(hash_person(f"{name}:variants", person), ranges_of_shares([0.5, 0.5]))
    return str(VARIANTS[position]["name"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_bundle(tmp_path, has_channels=True, stores_inputs=True)
    return tmp_path


@pytest.fixture
def port(root: Path) -> Iterator[int]:
    with serving(LiveEngine(str(root), hook=make_hook(root, variants=VARIANTS))) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with closing(Client(port)) as client:
        yield client


def rows_of(root: Path, request_id: str, kind: str = "answer") -> list[dict[str, Any]]:
    limit = time.monotonic() + 10
    while not (found := [row for row in read_rows(root) if (row["request_id"], row["kind"]) == (request_id, kind)]):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return sorted(found, key=lambda row: int(row["position"]))


def test_an_answer_names_its_variant_and_becomes_rows(root: Path, client: Client) -> None:
    _, first = client.send("GET", "/recall?user_id=u&k=2", headers={"X-Request-Id": "mine"})
    _, again = client.send("POST", "/recall", {"user_id": "u", "k": 2}, headers={"X-Request-Id": "mine"})
    assert (first["request_id"], first["variant"]) == ("mine", group_of("u"))
    assert again["variant"] == group_of("u")
    assert again["request_id"].startswith("mine-"), "an id in use is made another one"
    rows = rows_of(root, "mine")
    assert [(row["position"], row["item_id"], row["score"]) for row in rows] == [
        (1, first["item_ids"][0], first["scores"][0]),
        (2, first["item_ids"][1], first["scores"][1]),
    ]
    assert {(row["user_id"], row["variant"], row["bundle_id"]) for row in rows} == {("u", first["variant"], first["bundle_id"])}
    assert rows[0]["channels"] == first.get("sources", [["vectors"]])[0]
    assert abs(rows[0]["time_ms"] - time.time() * 1000) < 20_000


def test_a_variant_replaces_options_of_requests(client: Client) -> None:
    for person in "uvwxyz":
        _, answer = client.get(f"/recall?user_id={person}")
        assert answer["variant"] == group_of(person)
        if answer["source"] == "stored":
            assert ("sources" in answer) == (answer["variant"] == "control")
    groups = {group_of(person) for person in "uv"}
    assert groups == {"control", "vectors_only"}, "u and v show both"


def test_without_a_user_id_the_request_id_decides_and_a_batch_numbers_it(root: Path, client: Client) -> None:
    body = {"requests": [{"user_id": "v"}, {"features": {"city": "x"}}, {"user_id": "v", "k": 0}]}
    _, answer = client.send("POST", "/recall/batch", body, headers={"X-Request-Id": "many"})
    named, nameless, refused = answer["answers"]
    assert (named["request_id"], nameless["request_id"]) == ("many-0", "many-1")
    assert (named["variant"], nameless["variant"]) == (group_of("v"), group_of("many-1"))
    assert "request_id" not in refused
    assert rows_of(root, "many-1")[0]["user_id"] is None
    assert "request_id" not in client.get("/similar?item_id=n1")[1]


def read_arrow(port: int, person: str) -> pa.Table:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/recall?user_id={person}", headers={"accept": ARROW})
    with urllib.request.urlopen(asked) as answer:
        return pa.ipc.open_stream(answer.read()).read_all()


def test_an_answer_in_arrow_names_them_too(port: int) -> None:
    (row,) = read_arrow(port, "u").to_pylist()
    assert row["variant"] == group_of("u")
    assert len(row["request_id"]) == 32
    assert "bundle_id" not in row


def test_what_was_shown_replaces_an_answer_once(root: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for request_id in ("one", "two"):
        client.send("GET", "/recall?user_id=u", headers={"X-Request-Id": request_id})

    def show(request_id: str, items: Any = ("n2", "n0")) -> tuple[int, Any]:
        return client.send("POST", "/shown", {"request_id": request_id, "item_ids": items})

    assert [show("one", items)[0] for items in ([], ["n1", "n1"], [["n1"]], "n1")] == [400] * 4
    assert [show("one")[0], show("one")[0], show("other")[0]] == [204, 409, 404]
    rows, (answered, *_) = rows_of(root, "one", "shown"), rows_of(root, "one")
    assert [(row["position"], row["item_id"], row["score"], row["channels"]) for row in rows] == [
        (1, "n2", None, None),
        (2, "n0", None, None),
    ]
    shared = ("time_ms", "user_id", "variant", "bundle_id")
    assert [rows[0][name] for name in shared] == [answered[name] for name in shared]
    monkeypatch.setattr(module, "REPLACE_SECONDS", 0.0)
    assert show("two")[0] == 404, "forgotten"
    assert client.send("POST", "/shown?k=1", {"request_id": "two", "item_ids": ["n1"]})[0] == 400


def test_what_was_shown_needs_a_key_for_lists(root: Path) -> None:
    keys = write_keys(root, key_line("a-key-of-the-shop", scopes="similar"))
    live = LiveEngine(str(root), hook=make_hook(root))
    with serving(live, keys=keys) as port, closing(Client(port)) as client:
        body = {"request_id": "x", "item_ids": ["n1"]}
        assert client.send("POST", "/shown", body)[0] == 401
        assert client.send("POST", "/shown", body, {"X-API-Key": "a-key-of-the-shop"})[0] == 403


def test_health_and_metrics_tell_of_the_log(client: Client, root: Path) -> None:
    client.send("GET", "/recall?user_id=u&k=3", headers={"X-Request-Id": "told"})
    rows_of(root, "told")
    limit = time.monotonic() + 10
    while (health := client.get("/health")[1])["shown"]["waiting_rows"]:
        assert time.monotonic() < limit
    counts = {"rows_written": 3, "rows_dropped": 0, "write_failures": 0, "unassigned_answers": 0}
    assert (health["status"], health["shown"]["counts"], health["shown"]["fault"]) == ("ok", counts, None)
    lines = client.get("/metrics")[1].splitlines()
    assert {"dssm_shown_rows_written_total 3.0", "dssm_shown_waiting_rows 0.0"} <= set(lines)


def test_a_place_that_is_no_folder_is_told_while_answers_go_on(root: Path) -> None:
    (root / "shown").write_text("a file")
    with serving(LiveEngine(str(root), hook=make_hook(root))) as port, closing(Client(port)) as client:
        assert client.get("/recall?user_id=u")[1]["variant"] == "all"
        limit = time.monotonic() + 10
        while (health := client.get("/health")[1])["status"] == "ok":
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert "cannot be written" in health["shown"]["fault"]


def test_ids_of_another_type_are_the_same_person(tmp_path: Path) -> None:
    write_bundle(tmp_path, users={17: (1.0, 0.0), 18: (0.0, 1.0)})
    hook = make_hook(tmp_path, variants=[{"name": name, "share": 0.5} for name in ("a", "b")])
    engine = LiveEngine(str(tmp_path), hook=hook).engine
    answers = [engine.recall(UserRequest(one)) for one in (17, "17", "017", 2**40)]
    assert len({answer.variant for answer in answers[:3]}) == 1
    hook.close()
    assert {row["user_id"] for row in read_rows(tmp_path)} == {17, 2**40}


def write_two(root: Path) -> tuple[str, str]:
    """Writes two bundles, the second with other items; returns their ids. Either was served."""
    first = write_bundle(root, "2024-01-11", has_channels=True).name
    second = write_bundle(root, items={**ITEMS, "n9": (0.5, 0.5)}).name
    ids = (first, second)
    (root / "current.json").write_text(Pointer(ids, ids, second[:10]).to_json())
    return ids


def test_a_variant_asks_another_bundle_with_the_same_lists_of_the_shop(tmp_path: Path) -> None:
    first, second = write_two(tmp_path)
    (tmp_path / "blocked.txt").write_text("n0\n")
    hook = make_hook(tmp_path, variants=[{"name": "old", "share": 1.0, "bundle": "previous"}])
    live = LiveEngine(str(tmp_path), hook=hook, shop_lists=ShopLists(str(tmp_path / "blocked.txt")))
    answer = live.engine.recall(UserRequest("u"))
    assert (live.bundle_id, answer.bundle_id, answer.variant) == (second, first, "old")
    assert "n0" not in answer.item_ids
    (tmp_path / "blocked.txt").write_text("n1\nn2\n")
    assert live.refresh_lists()
    assert set(live.engine.recall(UserRequest("u")).item_ids) == {"n0", "n3"}
    assert live.state.shown is not None
    assert list(live.state.shown.bundle_bytes) == [first]
    assert live.state.shown.bundle_bytes[first] > 1000
    with serving(live) as port:
        assert read_arrow(port, "u").column("bundle_id").to_pylist() == [first]


class HidesU(HiddenRows):
    """Hides the user u."""

    def hides(self, user_id: int | str) -> bool:
        return user_id == "u"


def test_forgotten_people_are_unknown_to_the_bundles_of_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two(tmp_path)
    hook = make_hook(tmp_path, variants=[{"name": "old", "share": 1.0, "bundle": "previous"}])
    live = LiveEngine(str(tmp_path), hook=hook)
    assert live.engine.recall(UserRequest("u")).source == "stored"
    monkeypatch.setattr(HiddenList, "read", lambda _: HidesU())
    live.watches.start()
    limit = time.monotonic() + 10
    while live.engine.recall(UserRequest("u")).source == "stored":
        assert time.monotonic() < limit
        time.sleep(0.05)
    live.watches.stop()


def test_a_bundle_that_has_gone_is_told_and_its_people_get_the_served_one(root: Path) -> None:
    hook = make_hook(root, variants=[{"name": "gone", "share": 1.0, "bundle": "2024-01-01-aaaaaaaaaaaa"}])
    live = LiveEngine(str(root), hook=hook)
    answer = live.engine.recall(UserRequest("u"))
    assert (answer.bundle_id, answer.variant) == (live.bundle_id, None)
    state = live.state
    assert state.is_stale and state.shown is not None
    assert state.shown.counts["unassigned_answers"] == 1
    assert "2024-01-01-aaaaaaaaaaaa" in (state.shown.fault or "")
    hook.close()
    assert {row["variant"] for row in read_rows(root)} == {None}


def test_people_outside_all_shares_are_in_no_variant(root: Path) -> None:
    hook = make_hook(root, variants=[{"name": "few", "share": 0.0001}])
    assert LiveEngine(str(root), hook=hook).engine.recall(UserRequest("u")).variant is None


def test_recall_in_python_writes_the_same_log(tmp_path: Path) -> None:
    root = write_shop(tmp_path, {"shown": {}, "variants": VARIANTS})
    answer = dssm_assets.stored.recall("u", k=2, config=tmp_path / "config.yaml", home=tmp_path / "home")
    assert answer.variant == group_of("u")
    assert answer.request_id is not None
    assert [row["item_id"] for row in rows_of(root, answer.request_id)] == answer.item_ids


def test_without_the_keys_there_is_no_hook(root: Path) -> None:
    assert open_hook(Serving(), str(root), {}) is None
    with serving(LiveEngine(str(root))) as port, closing(Client(port)) as client:
        assert not {"request_id", "variant"} & client.get("/recall?user_id=u")[1].keys()
        assert client.send("POST", "/shown", {"request_id": "x", "item_ids": ["n1"]})[0] == 404
        assert client.get("/health")[1]["shown"] is None
    assert find_parts(root) == []


@pytest.mark.slow
def test_a_kill_loses_one_second_at_most_and_breaks_no_part(tmp_path: Path) -> None:
    root, answered = write_shop(tmp_path, {"shown": {}}), list[tuple[float, str]]()
    with served_by_process(tmp_path) as (process, port):

        def ask() -> None:
            with closing(Client(port)) as client, suppress(OSError):
                while True:
                    _, answer = client.get("/recall?user_id=u")
                    answered.append((time.monotonic(), answer["request_id"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(5)
        killed = time.monotonic()
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    found = {row["request_id"] for row in read_rows(root)}
    lost = [moment for moment, request_id in answered if request_id not in found]
    assert len(found) > 100
    assert killed - min(lost, default=killed) < 1.0
