"""An HTTP proxy in front of an object store that lets some requests fail, in the ways in which networks and stores fail.

A request fails in one of three ways, equally often: the store is not asked and answers 503 (slow down); the connection breaks
before the store is asked; the connection breaks after the store has done what was asked, so that the answer is lost.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

_BUSY: Final = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive"})


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to the server at a URL; a fraction of them fails. It counts those that were asked and that failed."""

    daemon_threads = True

    def __init__(self, target: str, failing_frac: float, seed: int = 17) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.asked = self.failed = 0
        self._failing_frac = failing_frac
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def draw_fault(self) -> str | None:
        """Returns how the next request fails, None if it does not."""
        with self._lock:
            self.asked += 1
            if self._random.random() >= self._failing_frac:
                return None
            self.failed += 1
            return self._random.choice(("busy", "before", "after"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps broken connections out of the output."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.draw_fault()
        if fault == "before":
            self._break()
            return
        if fault == "busy":
            self._answer(503, {"Content-Type": "application/xml"}, b"" if self.command == "HEAD" else _BUSY, len(_BUSY))
            return
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        finally:
            connection.close()
        if fault == "after":
            self._break()
            return
        length = int(headers.pop("Content-Length", len(content)))
        self._answer(answer.status, headers, content, length)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def _break(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names are those of http.server


@contextmanager
def faulty_proxy(target: str, failing_frac: float) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(target, failing_frac)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
