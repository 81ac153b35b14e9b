"""API keys, request ids, the access log and TLS of the service."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request

import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import InputError
from dssm_assets.serving.access import read_keys
from dssm_assets.serving.live import LiveEngine
from dssm_assets_tests.serving import bundles
from dssm_assets_tests.serving.servers import Client, serving

KEYS = ("old-key-of-the-shop", "new-key-of-the-shop")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    bundles.write_bundle(root)
    return root


def test_lists_need_a_key_and_health_does_not(root):
    with serving(LiveEngine(str(root)), keys=KEYS) as port:
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {KEYS[0]}"}):
            client = Client(port)
            status, refused = client.send("GET", "/recall?user_id=u&k=1", headers=headers)
            assert (status, refused["error"]) == (401, "UnauthorizedError")
            assert client.headers["www-authenticate"] == "Bearer"
            client.close()
        client = Client(port)
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
        client.close()


def test_each_answer_has_an_id_and_a_line_of_the_log(root):
    lines: list[str] = []
    with serving(LiveEngine(str(root)), log=lines.append) as port:
        client = Client(port)
        assert client.send("GET", "/recall?user_id=u&k=1", headers={"X-Request-Id": "call-7"})[0] == 200
        assert client.headers["x-request-id"] == "call-7"
        assert client.send("GET", "/recall?user_id=u&k=0", headers={"X-Request-Id": 'bad "id"'})[0] == 400
        made = client.headers["x-request-id"]
        client.get("/health")
        client.close()
    found = [json.loads(line) for line in lines]
    assert [(one["request_id"], one["status"], one["path"], one["method"]) for one in found] == [
        ("call-7", 200, "/recall", "GET"),
        (made, 400, "/recall", "GET"),
    ]
    assert len(made) == 32
    assert all(one["ms"] > 0 and one["bytes"] > 0 and one["client"] == "127.0.0.1" for one in found)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return str(pem), str(key)


def test_lists_over_tls(root, certificate):
    with serving(LiveEngine(str(root)), certificate=certificate) as port:
        trusted = ssl.create_default_context(cafile=certificate[0])
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/recall?user_id=u&k=1", timeout=20, context=trusted) as answer:
            assert json.load(answer)["item_ids"] == ["n0"]


@pytest.mark.parametrize("content", ["", "short\n", b"\xff" * 20, None])
def test_bad_files_of_keys_are_refused_without_showing_a_key(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="one key per line") as error:
        read_keys(str(path))
    assert "short\n" not in str(error.value)


def test_keys_are_lines(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"\n{KEYS[0]}\r\n  {KEYS[1]}\n")
    assert read_keys(str(path)) == KEYS


def test_a_certificate_without_its_key_is_refused(root, certificate, capsys):
    pem, key = certificate
    for arguments in (["--tls-certificate", pem], ["--tls-certificate", key, "--tls-key", pem]):
        assert main(["serve", "--bundle", str(root), *arguments]) == 1
        assert "expected a certificate and its private key" in capsys.readouterr().err
