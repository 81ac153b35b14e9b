"""Silent, slow and many connections, with and without TLS: they end soon, and keep nobody out."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
import urllib.request

import pytest

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.http import connections
from dssm_assets_tests.service.http.servers import Client, serving

HALF_HELLO = bytes.fromhex("16030102000100")
"""The beginning of the first message of TLS."""


def open_silent(stack, port, first, count):
    found = []
    for _ in range(count):
        found.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
        with contextlib.suppress(OSError):
            found[-1].sendall(first)
    return found


def is_ended(connection):
    """Waits for the end of a connection."""
    try:
        while connection.recv(1000):
            pass  # a refusal of what is no HTTP
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("first", [b"", b"\x16", HALF_HELLO, b"GET /health HTTP/1.1\r\nHost"])
@pytest.mark.parametrize("has_tls", [True, False])
def test_silent_connections_end_soon_and_keep_nobody_out(root, certificate, monkeypatch, first, has_tls):
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 1.0)
    if has_tls:
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (28, 28))
    else:
        monkeypatch.setattr(connections, "MAX_NEW", 20)
    trusted = ssl.create_default_context(cafile=certificate[0]) if has_tls else None
    limits = ServiceLimits(keep_alive_seconds=1)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(LiveEngine(root), limits, certificate if has_tls else None))
        silent = open_silent(stack, port, first, 60)
        start = time.monotonic()
        with urllib.request.urlopen(f"http{'s' * has_tls}://127.0.0.1:{port}/health", timeout=10, context=trusted) as answer:
            assert json.load(answer)["status"] == "ok"
        assert all(is_ended(connection) for connection in silent[:40])
        assert time.monotonic() - start < 0.9, "the oldest end before their time"
        assert all(is_ended(connection) for connection in silent)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "first", [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]
)
@pytest.mark.parametrize("has_tls", [True, False])
def test_connections_that_send_bytes_after_an_answer_end_soon(root, certificate, first, has_tls):
    trusted = ssl.create_default_context(cafile=certificate[0])
    with serving(LiveEngine(root), ServiceLimits(keep_alive_seconds=1), certificate if has_tls else None) as port:
        plain = socket.create_connection(("127.0.0.1", port))
        with trusted.wrap_socket(plain, server_hostname="127.0.0.1") if has_tls else plain as slow:
            slow.settimeout(0.2)
            slow.sendall(first)
            start = time.monotonic()
            with contextlib.suppress(OSError):
                for byte in b"GET /" + b"x" * 100:
                    slow.sendall(bytes([byte]))
                    if is_ended(slow):
                        break
        assert 1 < time.monotonic() - start < 10


def test_a_slow_reader_gets_its_whole_answer_over_tls(root, certificate, monkeypatch):
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 1.0)
    body = json.dumps({"requests": [{f"{number:0400}": 1 for number in range(20)}] * 1000}).encode()
    limits = ServiceLimits(keep_alive_seconds=1, max_body_bytes=1 << 24)
    trusted = ssl.create_default_context(cafile=certificate[0])
    with serving(LiveEngine(root), limits, certificate) as port, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", port))
        with trusted.wrap_socket(plain, server_hostname="127.0.0.1") as slow:
            slow.sendall(b"POST /recall/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            slow.recv(1)
            time.sleep(4)
            with slow.makefile("rb") as answer:
                answer.readline()
                head = http.client.parse_headers(answer)
                assert len(answer.read(int(head["content-length"]))) == int(head["content-length"]) > 8_000_000


def test_connections_with_requests_stay_while_silent_ones_come(root, monkeypatch):
    monkeypatch.setattr(connections, "MAX_NEW", 5)
    with serving(LiveEngine(root)) as port, contextlib.ExitStack() as stack, contextlib.closing(Client(port)) as client:
        assert client.get("/health")[0] == 200
        open_silent(stack, port, b"", 20)
        assert client.get("/recall?user_id=u&k=1")[1]["item_ids"] == ["n0"]


def test_connections_beyond_the_limit_are_closed(root, monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (4, 4))
    with serving(LiveEngine(root)) as port, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(port))) for _ in range(3)]
        assert [client.get("/health")[0] for client in clients] == [200] * 3
        (refused,) = open_silent(stack, port, b"", 1)
        assert is_ended(refused)
        assert clients[0].get("/health")[0] == 200
