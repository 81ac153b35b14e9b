"""No process of ours looks up a host, connects to another machine, or writes outside its home and its scratch folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.service import bundles
from dssm_assets_tests.watched_process import can_trace, watch

PACKAGE = Path(__file__).parents[1] / "dssm_assets"
MAIN = [sys.executable, "-c", "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"]
SERVE_ONE_REQUEST = """
import os, signal, sys, threading, time, urllib.request
from dssm_assets.cli import main

def ask():
    url = "http://127.0.0.1:" + sys.argv[1]
    for _ in range(600):
        time.sleep(0.1)
        try:
            urllib.request.urlopen(url + "/health")
            break
        except OSError:
            pass
    body = b'{"features": {"city": "x"}, "k": 1}'
    assert urllib.request.urlopen(urllib.request.Request(url + "/recall", body)).status == 200
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=ask, daemon=True).start()
sys.exit(main(["serve", "--port", *sys.argv[1:]]))
"""


@pytest.fixture
def place(tmp_path):
    """Folders `user` (the user's home), `scratch` and `home`, and an environment without a word on telemetry."""
    if not can_trace(tmp_path):
        pytest.skip("strace is not permitted here")
    for name in ("user", "scratch", "home"):
        (tmp_path / name).mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "MPL"))}
    environment |= {
        "HOME": str(tmp_path / "user"),
        "TMPDIR": str(tmp_path / "scratch"),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return tmp_path, environment


def check(place, *command, status=0):
    folder, environment = place
    outside = watch(command, environment, [folder / "home", folder / "scratch"], folder / "trace.txt")
    assert outside.status == status
    assert not outside.connections
    assert not outside.look_ups
    assert not outside.written
    assert list((folder / "user").rglob("*")) == []


def test_recall(place):
    root = bundles.write_bundle(place[0] / "home" / "serving").parent.parent
    check(place, *MAIN, "recall", "--bundle", str(root), "--features", '{"city": "x"}', "-k", "1")


def test_serve(place):
    root = bundles.write_bundle(place[0] / "home" / "serving").parent.parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check(place, sys.executable, "-c", SERVE_ONE_REQUEST, str(port), "--bundle", str(root), status=-signal.SIGINT)


@pytest.mark.heavy
def test_materialize(place):
    folder, environment = place
    worlds.write_world(folder)
    environment["DSSM_CONFIG"] = str(folder / "config.yaml")
    check(place, *MAIN, "materialize", "behavior_table", "--from", worlds.DAYS[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_chain(place):
    folder, environment = place
    worlds.write_world(folder)
    environment["DSSM_CONFIG"] = str(folder / "config.yaml")
    first, last = worlds.DAYS[0], worlds.EVALUATION_DAY
    check(place, *MAIN, "materialize", "daily_tables", "--from", first, "--to", last)
    check(place, *MAIN, "materialize", "train_and_evaluate", "--from", last)
    check(place, *MAIN, "materialize", "publish", "--from", last)
    check(place, *MAIN, "recall", "--user-id", "a1", "--features", '{"city": "x"}')


def test_trace_shows_what_native_code_does(place):
    folder, environment = place
    code = (
        "import os, socket; os.mkdir(os.environ['HOME'] + '/cache')\n"
        "try: socket.getaddrinfo('telemetry.example.invalid', 443)\nexcept OSError: pass\n"
        "try: socket.create_connection(('192.0.2.1', 443), 0.1)\nexcept OSError: pass\n"
    )
    outside = watch([sys.executable, "-c", code], environment, [folder / "scratch"], folder / "trace.txt")
    assert outside.written == {str(folder / "user" / "cache")}
    assert outside.look_ups
    assert any("192.0.2.1" in call for call in outside.connections)


def test_telemetry_is_off_before_the_import_of_onnxruntime(tmp_path):
    root = bundles.write_bundle(tmp_path / "serving").parent.parent
    code = (
        "import os, sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'onnxruntime':\n"
        "        print('at import:', os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.addaudithook(watch)\n"
        "from dssm_assets.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "recall", "--bundle", str(root), "--user-id", "u", "-k", "1", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.splitlines()[0] == "at import: 1"


def test_one_module_imports_onnxruntime():
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import|from) onnxruntime", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert importing == {"service/bundle/onnx_session.py"}


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yaml", "kubernetes/code_location.yaml"])
def test_deployments_turn_it_off_too(name):
    text = (PACKAGE.parent / "deploy" / name).read_text(encoding="utf-8")
    assert re.search(r"ORT_DISABLE_TELEMETRY[=:] ?\"?1", text)
