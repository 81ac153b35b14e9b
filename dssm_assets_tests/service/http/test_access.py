"""API keys, request ids, the access log and TLS of the service."""

from __future__ import annotations

import datetime as dt
import hmac
import json
import os
import ssl
import time
import urllib.request
from contextlib import closing

import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import InputError
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.watches import Watch
from dssm_assets.service.http.access import OPEN_ROUTES, SCOPES, SHOWN
from dssm_assets.service.http.api_keys import read_keys
from dssm_assets.service.http.app import build_app
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.servers import Client, key_line, served_by_process, serving, write_keys

KEYS = ("old-key-of-the-shop", "new-key-of-the-shop")
EVENTS = {"user_id": "u", "k": 1, "events": {"item_ids": ["n1"]}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    bundles.write_bundle(root, stores_inputs=True)
    return root


def ask(port, key, method, path, body=None):
    with closing(Client(port)) as client:
        return client.send(method, path, body, {"X-API-Key": key})


def test_lists_need_a_key_and_health_does_not(root, tmp_path):
    lines = ["# a comment of the shop\n", key_line("short-key", "short"), key_line(KEYS[0], "old"), key_line(KEYS[1], "new")]
    with serving(LiveEngine(str(root)), keys=write_keys(tmp_path, *lines)) as port:
        refused_keys = (
            {},
            {"X-API-Key": "# a comment of the shop"},
            {"X-API-Key": "short-key"},
            {"X-API-Key": lines[2].strip()},
        )
        for headers in (*refused_keys, {"Authorization": "Bearer "}, {"Authorization": f"Basic {KEYS[0]}"}):
            with closing(Client(port)) as client:
                status, refused = client.send("GET", "/recall?user_id=u&k=1", headers=headers)
            assert (status, refused["error"]) == (401, "UnauthorizedError")
            assert client.headers["www-authenticate"] == "Bearer"
        with closing(Client(port)) as client:
            for headers in (
                {"X-API-Key": KEYS[0]},
                {"Authorization": f"Bearer {KEYS[1]}"},
                {"X-API-Key": KEYS[0], "Authorization": "Bearer of-a-proxy"},
            ):
                status, answer = client.send("GET", "/recall?user_id=u&k=1", headers=headers)
                assert (status, answer["item_ids"]) == (200, ["n0"])
            assert client.get("/health")[0] == 200
            assert client.get("/ready") == (200, {"is_ready": True})
            assert client.get("/metrics")[0] == 200
            assert client.get("/nowhere")[0] == 401


STATUSES = {
    "recall": [200, 200, 403, 200, 403],
    "recall,events": [200, 200, 200, 200, 403],
    "events": [403, 403, 403, 403, 403],
    "similar": [403, 403, 403, 403, 200],
    "admin": [200, 200, 200, 200, 200],
}


@pytest.mark.parametrize("scopes", STATUSES)
def test_a_key_asks_for_what_its_scopes_allow(root, tmp_path, scopes):
    asked = [("GET", "/recall?user_id=u"), ("POST", "/recall", {"user_id": "u"}), ("POST", "/recall", EVENTS)]
    asked += [("POST", "/recall/batch", {"requests": [EVENTS, {"user_id": "u", "k": 1}]}), ("GET", "/similar?item_id=n0")]
    with serving(LiveEngine(str(root)), keys=write_keys(tmp_path, key_line(KEYS[0], scopes=scopes))) as port:
        found = [ask(port, KEYS[0], *one) for one in asked]
    assert [status for status, _ in found] == STATUSES[scopes]
    assert {answer["error"] for status, answer in found if status == 403} <= {"ForbiddenError"}
    if scopes == "recall":
        refused, answered = found[3][1]["answers"]
        assert (refused["error"], answered["item_ids"]) == ("ForbiddenError", ["n0"])
        assert refused["faults"][0]["expected"] == "the scope events"


def test_a_key_ends_with_its_last_day(root, tmp_path):
    today, lines = dt.datetime.now(dt.UTC).date(), list[str]()
    days = {"old": str(today - dt.timedelta(1)), "new": str(today)}
    keys = write_keys(tmp_path, *(key_line(key, name, last_day=days[name]) for key, name in zip(KEYS, days, strict=True)))
    with serving(LiveEngine(str(root)), keys=keys, log=lines.append) as port:
        assert ask(port, KEYS[1], "GET", "/recall?user_id=u")[0] == 200
        status, refused = ask(port, KEYS[0], "GET", "/recall?user_id=u")
    assert (status, refused["faults"][0]["got"]) == (401, f"old, whose last day was {days['old']}")
    assert [json.loads(line)["key"] for line in lines] == ["new", "old"]


def test_every_route_is_open_or_needs_a_scope(root):
    assert set(build_app(LiveEngine(str(root))).openapi()["paths"]) == {*SCOPES, *OPEN_ROUTES} - {SHOWN}


def wait_for(read, wanted):
    limit = time.monotonic() + 20
    while wanted not in read():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_running_service_takes_changed_keys(root, tmp_path):
    write_keys(tmp_path, key_line(KEYS[0]))
    path = tmp_path / "keys.txt"
    with served_by_process(str(root), "--api-key-file", str(path), "--check-seconds", "0.1") as (_, port):
        assert ask(port, KEYS[0], "GET", "/recall?user_id=u")[0] == 200
        path.write_text(key_line(KEYS[1], scopes="similar"))
        wait_for(lambda: ask(port, KEYS[0], "GET", "/recall?user_id=u"), 401)
        path.unlink()
        os.mkfifo(path)
        wait_for(lambda: ask(port, "", "GET", "/metrics")[1], "dssm_api_keys_stale 1.0")
        assert ask(port, KEYS[1], "GET", "/similar?item_id=n0")[0] == 200
        assert ask(port, KEYS[1], "GET", "/recall?user_id=u")[0] == 403


def test_a_broken_file_keeps_the_keys_and_is_logged_once(tmp_path, caplog):
    keys = write_keys(tmp_path, key_line(KEYS[0]))
    watch = Watch("the API keys", keys.refresh, 1.0)
    for content in ("", KEYS[1], key_line(KEYS[1]) + "x\n"):
        (tmp_path / "keys.txt").write_text(content)
        caplog.clear()
        watch.look()
        watch.look()
        (line,) = caplog.messages
        assert line.startswith("the API keys cannot be read and stay as they were: InputError: ")
        assert "--api-key-file" in line and "\n" not in line and KEYS[1] not in line
    assert keys.find([b"", KEYS[0].encode()]).name == "shop"
    write_keys(tmp_path, key_line(KEYS[1]))
    keys.refresh()
    assert (keys.fault, keys.find([KEYS[0].encode()])) == (None, None)


def test_each_answer_has_an_id_and_a_line_of_the_log(root, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setenv("DSSM_LOG_SECRET", "secret-of-the-log")
    keys = write_keys(tmp_path, key_line(KEYS[0]))
    with serving(LiveEngine(str(root)), keys=keys, log=lines.append) as port, closing(Client(port)) as client:
        headers = {"X-Request-Id": "call-7", "X-API-Key": KEYS[0]}
        assert client.send("GET", "/recall?user_id=user-17&k=1", headers=headers)[0] == 200
        assert client.headers["x-request-id"] == "call-7"
        assert client.send("GET", "/recall?user_id=u&k=0", headers={**headers, "X-Request-Id": 'bad "id"'})[0] == 400
        made = client.headers["x-request-id"]
        client.get("/health")
        assert client.send("POST", "/recall", {"user_id": "user-17", "unknown": "404"}, headers)[0] == 404
        assert client.send("GET", "/recall/user-17", headers=headers)[0] == 404
        batch = [{"user_id": "user-17"}, {"user_id": "user-18"}, {"user_id": "user-17"}, {"features": {"city": "x"}}]
        assert client.send("POST", "/recall/batch", {"requests": batch}, headers)[0] == 200
        assert client.send("GET", "/recall?user_id=user-17")[0] == 401
    found = [json.loads(line) for line in lines]
    user, other = (hmac.digest(b"secret-of-the-log", name, "sha256").hex()[:32] for name in (b"user-17", b"u"))
    assert [
        tuple(one[name] for name in ("request_id", "status", "path", "method", "key", "user", "users")) for one in found
    ] == [
        ("call-7", 200, "/recall", "GET", "shop", user, 1),
        (made, 400, "/recall", "GET", "shop", other, 1),
        ("call-7", 404, "/recall", "POST", "shop", user, 1),
        ("call-7", 404, "other", "GET", "shop", None, 0),
        ("call-7", 200, "/recall/batch", "POST", "shop", None, 2),
        (found[5]["request_id"], 401, "/recall", "GET", None, None, 0),
    ]
    assert len(made) == 32
    assert "user-1" not in "".join(lines)
    assert all(one["ms"] > 0 and one["bytes"] > 0 and one["client"] == "127.0.0.1" for one in found)


def test_lists_over_tls(root, certificate):
    with serving(LiveEngine(str(root)), certificate=certificate) as port:
        trusted = ssl.create_default_context(cafile=certificate[0])
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/recall?user_id=u&k=1", timeout=20, context=trusted) as answer:
            assert json.load(answer)["item_ids"] == ["n0"]


BAD = {
    "# only a comment\n\n": "at least 1 item",
    f"{KEYS[0]}\n": "line 1, scopes: expected a value, got nothing",
    f"shop recall 2999-12-31 {KEYS[0]}": "line 1, sha256: expected a match of the pattern .*sha256:",
    f"\nshop recall {KEYS[0]} 2999-12-31": "line 2, last_day",
    key_line(KEYS[0], last_day="2027-02-29"): "line 1, last_day: .* day value is outside",
    key_line(KEYS[0], scopes="recall,write"): "line 1, scopes: expected 'recall', 'similar', 'events' or 'admin'",
    key_line(KEYS[0]) + key_line(KEYS[1]): "each name and key once, got shop",
    key_line(KEYS[0], "a") + key_line(KEYS[0], "b"): "each name and key once, got sha256",
    "\udcff" * 20: "line 1, name",
    "#" * 70_000: "no file of at most 65536 bytes",
    None: "no file",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_files_of_keys_are_refused_without_showing_a_key(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match=BAD[content]) as error:
        read_keys(str(path))
    assert KEYS[0] not in str(error.value)


def test_keys_are_lines_of_columns(tmp_path):
    (tmp_path / "keys").write_bytes(
        f"\ufeff# of the shop\r\n\r\n  web\tadmin,events  2027-03-31 sha256:{'0f' * 32}  # for now\n".encode()
    )
    (key,) = read_keys(str(tmp_path / "keys"))
    assert (key.name, key.scopes, key.last_day) == ("web", {"admin", "events"}, dt.date(2027, 3, 31))


def test_a_certificate_without_its_key_is_refused(root, certificate, capsys):
    pem, key = certificate
    for arguments in (["--tls-certificate", pem], ["--tls-certificate", key, "--tls-key", pem]):
        assert main(["serve", "--bundle", str(root), *arguments]) == 1
        assert "expected a certificate and its private key" in capsys.readouterr().err
