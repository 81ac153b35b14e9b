"""Who may ask the service, and the log of who asked: an API key, an id for each request, one line of JSON per answer.

The id is the client's `X-Request-Id`, or a new one; the answer carries it. /health, /ready and /metrics need no key and are not logged. /docs,
which the service is described by, and what it loads need no key: a browser sends none before the user gives it to the page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.serving.refusals import UnauthorizedError, error_body

OPEN_ROUTES: Final = ("/health", "/ready", "/metrics")
DOCS: Final = "/docs"
MIN_KEY_LENGTH: Final = 16
REQUEST_ID: Final = b"x-request-id"
CLIENT_LEFT: Final = 499
"""Logged status of a request whose client left before its answer began."""
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PATH_LENGTH: Final = 120


def read_keys(path: str) -> tuple[str, ...]:
    """Returns the API keys of a file, one per line; several let clients change from one to the next.

    Raises:
        InputError: the file cannot be read, has no key, or one that is too short to be secret. The error shows no key.
    """
    where, remedy = f"--api-key-file {path}", f"write one key per line, of {MIN_KEY_LENGTH} or more printable ASCII characters"
    try:
        keys = tuple(line for text in Path(path).read_text(encoding="ascii").splitlines() if (line := text.strip()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where, "a readable file of keys", type(error).__name__, remedy)) from error
    if not keys or any(len(key) < MIN_KEY_LENGTH or not key.isprintable() for key in keys):
        raise InputError(
            Fault(where, "keys that cannot be guessed", f"{len(keys)} keys, a short one among them" if keys else "none", remedy)
        )
    return keys


class Access:
    """The application behind its keys, with an id and a log line for each request."""

    def __init__(self, app: ASGIApp, keys: Sequence[str] = (), log: Callable[[str], None] | None = None) -> None:
        """Wraps an application.

        Args:
            keys: API keys; none: everybody may ask.
            log: takes the line of each answer; None: there is no log.
        """
        self._app, self._log = app, log
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_ROUTES:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(REQUEST_ID, b"")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        start, status, size = time.perf_counter(), 0, 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, request_id)]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        ended = 500
        try:
            if self._digests and not (_is_description(scope["path"]) or self._has_key(headers)):
                await _refuse(send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
            ended = CLIENT_LEFT
        finally:
            if self._log is not None:
                seconds = time.perf_counter() - start
                self._log(_line(scope, request_id, status or ended, size, seconds))

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = [headers.get(b"x-api-key", b""), bearer.strip() if scheme.lower() == b"bearer" else b""]
        digests = [hashlib.sha256(one).digest() for one in given]
        # All are compared, so that the time tells nothing.
        return any([hmac.compare_digest(digest, one) for one in self._digests for digest in digests])  # noqa: C419


def _is_description(path: str) -> bool:
    return path in ("/", "/openapi.json", DOCS) or path.startswith(f"{DOCS}/")


def _line(scope: Scope, request_id: bytes, status: int, size: int, seconds: float) -> str:
    client = scope.get("client")
    content = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request_id": request_id.decode(),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"][:_PATH_LENGTH],
        "status": status,
        "bytes": size,
        "ms": round(1000 * seconds, 2),
    }
    return json.dumps(content)


async def _refuse(send: Send) -> None:
    remedy = "send the header Authorization: Bearer KEY, or X-API-Key: KEY"
    body = error_body(
        UnauthorizedError.__name__, [Fault("request", "an API key of this service", "none or another", remedy)], 1
    )
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": UnauthorizedError.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
