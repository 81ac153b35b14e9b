"""A real server on a loopback port, and a client with a persistent connection.

Belongs here: starting and stopping uvicorn in a thread. Does not belong here: expectations.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from dssm_assets.serving.http import build_app
from dssm_assets.serving.live import LiveEngine


@contextlib.contextmanager
def serving(live: LiveEngine, threads: int = 2) -> Iterator[int]:
    """Serves on a free port of the loopback interface; yields the port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(live, threads), access_log=False, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        limit = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < limit, "the server did not start"
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


class Client:
    """One persistent connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Returns the status and the parsed answer, or its text if it is not JSON."""
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if "json" in (answer.headers["Content-Type"] or "") else text

    def get(self, path: str) -> tuple[int, Any]:
        """Sends a GET request."""
        return self.send("GET", path)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
