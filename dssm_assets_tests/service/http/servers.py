"""A real server on a loopback port, in a thread or as a process, and a client with a persistent connection.

Belongs here: starting and stopping servers. Does not belong here: expectations.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import uvicorn

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.http.api_keys import LiveKeys
from dssm_assets.service.http.app import build_app


@contextlib.contextmanager
def serving(
    live: LiveEngine, limits: ServiceLimits | None = None, certificate: tuple[str, str] | None = None, **options: Any
) -> Iterator[int]:
    """Serves on a free port of the loopback interface, with options of `build_app`; yields the port."""
    bounds = limits or ServiceLimits()
    pem, key = certificate or (None, None)
    config = uvicorn.Config(
        build_app(live, bounds, **options),
        log_level="warning",
        ssl_certfile=pem,
        ssl_keyfile=key,
        timeout_keep_alive=bounds.keep_alive_seconds,
        timeout_graceful_shutdown=bounds.shutdown_seconds,
    )
    # asyncio lets small answers wait for the client (Nagle) where a socket does not say that it is TCP.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        limit = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < limit, "the server did not start"
            time.sleep(0.01)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(20)


def key_line(key: str, name: str = "shop", scopes: str = "recall,similar,events", last_day: str = "9999-12-31") -> str:
    """Returns the line of an API key."""
    return f"{name} {scopes} {last_day} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


def write_keys(folder: Path, *lines: str) -> LiveKeys:
    """Writes the file of some keys, and reads it."""
    (folder / "keys.txt").write_text("".join(lines))
    return LiveKeys(str(folder / "keys.txt"))


SLOW_USER = "slow"
_SLOW_SERVE = f"""
import argparse, sys, time
from dssm_assets.commands.command_groups import Commands
from dssm_assets.service.commands import serve
from dssm_assets.service.engine.recall_engine import RecallEngine

recall_for_users = RecallEngine.recall_for_users

def wait(self, requests, *rest):
    time.sleep(4 if any(one.user_id == {SLOW_USER!r} for one in requests) else 0)
    return recall_for_users(self, requests, *rest)

RecallEngine.recall_for_users = wait
parser = argparse.ArgumentParser()
serve.add_command(Commands(parser))
parsed = parser.parse_args(["serve", "--port", "0", *sys.argv[1:]])
sys.exit(parsed.command(parsed))
"""


@contextlib.contextmanager
def running_server(command: list[str], **options: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs a command that serves, until the block ends; yields the process and its port."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        assert process.stderr is not None
        try:
            output = ""
            while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", output)):
                line = process.stderr.readline()
                assert line, f"the server ended: {output}"
                output += line
            threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop the server
            yield process, int(found.group(1))
        finally:
            process.kill()


def served_by_process(root: str, *arguments: str) -> AbstractContextManager[tuple[subprocess.Popen[str], int]]:
    """Runs `dssm-assets serve` over a bundle; see `running_server`. The list of SLOW_USER takes 4 seconds."""
    return running_server([sys.executable, "-c", _SLOW_SERVE, "--bundle", root, *arguments])


class Client:
    """One persistent connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Returns the status and the parsed answer, or its text if it is not JSON; `headers` keeps those of the answer."""
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        given = {**({"Content-Type": "application/json"} if content else {}), **(headers or {})}
        self._connection.request(method, path, content, given)
        answer = self._connection.getresponse()
        self.headers = dict(answer.headers.items())
        text = answer.read().decode()
        return answer.status, json.loads(text) if "json" in (answer.headers["Content-Type"] or "") else text

    def get(self, path: str) -> tuple[int, Any]:
        """Sends a GET request."""
        return self.send("GET", path)

    def close(self) -> None:
        self._connection.close()
