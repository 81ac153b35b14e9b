"""The two processes of `dssm-assets serve`: neither outlives the other, and signals reach the one that they are for."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dssm_assets.serving.live import LiveEngine
from dssm_assets_tests.serving import bundles
from dssm_assets_tests.serving.servers import SLOW_USER, Client, served_by_process, serving


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(bundles.write_bundle(tmp_path_factory.mktemp("serving")).parent.parent)


def engine_of(process):
    """Returns the process id of the engine of a service."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def wait_until_gone(pid, seconds=20):
    limit = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < limit, f"{pid} still runs"
        time.sleep(0.02)


def test_service_ends_if_its_engine_ends_and_says_so_to_whom_it_computes_for(root):
    with served_by_process(root) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as waiting:
        waiting.sendall(f"GET /recall?user_id={SLOW_USER} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.3)
        os.kill(engine_of(process), signal.SIGKILL)
        answer = b""
        while not answer.endswith(b"}"):
            answer += waiting.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503") and b"it has ended" in answer
        assert process.wait(20) == 1


def test_engine_ends_with_a_killed_service_whatever_it_computes(root):
    with served_by_process(root) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as waiting:
        waiting.sendall(f"GET /recall?user_id={SLOW_USER} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.3)
        engine = engine_of(process)
        process.kill()
        wait_until_gone(engine)


def test_signals_to_the_whole_group_leave_the_engine_to_the_service(root):
    with served_by_process(root) as (process, port):
        engine = engine_of(process)
        for sent in (signal.SIGINT, signal.SIGTERM):
            os.kill(engine, sent)
        client = Client(port)
        assert client.get("/recall?user_id=u&k=1")[1]["item_ids"] == ["n0"]
        client.close()
        process.terminate()
        wait_until_gone(engine)


def test_service_without_a_bundle_is_a_typed_error(tmp_path):
    code = "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--bundle", str(tmp_path), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert "expected" in ended.stderr and str(tmp_path) in ended.stderr and "Traceback" not in ended.stderr


def test_a_failed_list_is_500_and_the_next_one_is_computed(root, monkeypatch):
    live = LiveEngine(root)
    with serving(live, threads=1) as port:
        client = Client(port)
        with monkeypatch.context() as patched:
            patched.setattr(type(live.engine), "_plan_for_user", lambda *_: 1 / 0)
            assert client.get("/recall?user_id=u")[0] == 500
        assert client.get("/recall?user_id=u&k=1")[1]["item_ids"] == ["n0"]
        client.close()


def test_client_that_sends_requests_without_waiting_is_cut_off_after_four_more_answers(root):
    """Cut off at once, it would come back at once: hundreds of such clients kept `/health` waiting for seconds."""
    with served_by_process(root) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=20) as hasty:
        received = b""
        with contextlib.suppress(ConnectionError):  # sent, but not read by the service
            hasty.sendall(b"GET /recall?user_id=u HTTP/1.1\r\nHost: x\r\n\r\n" * 7)
            while part := hasty.recv(65536):
                received += part
        assert received.count(b"HTTP/1.1 200") == 5
        client = Client(port)
        assert 'dssm_connections_closed_total{reason="pipelined"} 1' in client.get("/metrics")[1]
        client.close()
