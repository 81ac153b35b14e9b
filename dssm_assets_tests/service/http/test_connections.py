"""Connections that are silent or slow: idle ones end, hundreds keep nobody out, and a slow reader gets its whole answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time

import pytest

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service.http.servers import serving


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_connection_ends_after_its_answer_and_silent_ones_keep_nobody_out(root, certificate, has_tls):
    trusted = ssl.create_default_context(cafile=certificate[0])
    limits = ServiceLimits(keep_alive_seconds=1)
    with serving(LiveEngine(root), limits, certificate if has_tls else None) as port, contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)).sendall(b"\x16")
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        used = stack.enter_context(trusted.wrap_socket(plain, server_hostname="127.0.0.1")) if has_tls else plain
        start = time.monotonic()
        used.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert used.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - start < 0.9, "others do not keep it waiting"
        while used.recv(1 << 16):
            pass
        assert 0.9 < time.monotonic() - start < 5, "the service ends the connection"


def test_a_slow_reader_gets_its_whole_answer_over_tls(root, certificate):
    body = json.dumps({"requests": [{f"{number:0400}": 1 for number in range(20)}] * 1000}).encode()
    limits = ServiceLimits(keep_alive_seconds=1, max_body_bytes=1 << 24)
    trusted = ssl.create_default_context(cafile=certificate[0])
    with serving(LiveEngine(root), limits, certificate) as port, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", port))
        with trusted.wrap_socket(plain, server_hostname="127.0.0.1") as slow:
            slow.sendall(b"POST /recall/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            slow.recv(1)
            time.sleep(2)
            with slow.makefile("rb") as answer:
                answer.readline()
                head = http.client.parse_headers(answer)
                assert len(answer.read(int(head["content-length"]))) == int(head["content-length"]) > 8_000_000
