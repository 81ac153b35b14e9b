"""Checks the API key of each request, and records the request: its id, metrics, spans, one line of JSON per answer.

The id is the client's `X-Request-Id`, or a new one; the answer carries it. /health, /ready and /metrics need no key and are not logged. /docs
and its scripts need no key: a browser sends a key only after the user gives it to the page.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.serving.answers import RETRY_AFTER, BusyError, UnauthorizedError, error_content
from dssm_assets.serving.telemetry import RequestTracer, ServiceMetrics

OPEN_ROUTES: Final = ("/health", "/ready", "/metrics")
ROUTES: Final = ("/recall", "/recall/batch", "/similar", *OPEN_ROUTES)
DOCS: Final = "/docs"
MIN_KEY_LENGTH: Final = 16
REQUEST_ID: Final = b"x-request-id"
CLIENT_LEFT: Final = 499
"""Logged status of a request of a client that left before its answer began."""
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REMEDY: Final = "send the header Authorization: Bearer KEY, or X-API-Key: KEY"

_log = logging.getLogger(__name__)


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
        got = f"{len(keys)} keys, a short one among them" if keys else "none"
        raise InputError(Fault(where, "keys that cannot be guessed", got, remedy))
    return keys


class RequestGate:
    """The application behind its keys; each request is counted, timed, traced and logged, and its answer has an id.

    Paths without a route share the label `other`, so that labels stay few.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServiceMetrics,
        tracer: RequestTracer | None = None,
        keys: Sequence[str] = (),
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._app, self._metrics, self._tracer, self._log = app, metrics, tracer, log
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        route, is_open = path if path in ROUTES else "other", path in OPEN_ROUTES
        given = headers.get(REQUEST_ID, b"")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        start_ns, start, status, size = time.time_ns(), time.perf_counter(), 0, 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, request_id)]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            is_description = path in ("/", "/openapi.json", DOCS) or path.startswith(f"{DOCS}/")
            if is_open or not self._digests or is_description or self._has_key(headers):
                await self._app(scope, receive, send_with_id)
            else:
                no_key = UnauthorizedError(Fault("request", "an API key of this service", "none or another", _REMEDY))
                await _refuse(no_key, {"www-authenticate": "Bearer"})(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except asyncio.CancelledError:
            if status:
                raise
            busy = BusyError(Fault("service", "time for the list", "a shutdown", "try again later"))
            await _refuse(busy, RETRY_AFTER)(scope, receive, send_with_id)
        except Exception as error:
            _log.exception("%s failed", path)
            self._metrics.errors.labels(route, type(error).__name__).inc()
            if not status:
                await JSONResponse(error_content(type(error).__name__, []), 500)(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.seconds.labels(route).observe(seconds)
            self._metrics.requests.labels(route, str(status)).inc()
            if self._tracer is not None:
                self._tracer.record(scope, route, status, start_ns, time.time_ns())
            if self._log is not None and not is_open:
                self._log(_line(scope, request_id, status, size, seconds))

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = [headers.get(b"x-api-key", b""), bearer.strip() if scheme.lower() == b"bearer" else b""]
        digests = [hashlib.sha256(one).digest() for one in given]
        # All are compared, so that the time tells nothing.
        return any([hmac.compare_digest(digest, one) for one in self._digests for digest in digests])  # noqa: C419


def _refuse(error: UnauthorizedError | BusyError, headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(error_content(type(error).__name__, error.faults), error.status, headers)


def _line(scope: Scope, request_id: bytes, status: int, size: int, seconds: float) -> str:
    client = scope.get("client")
    content = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request_id": request_id.decode(),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"][:120],
        "status": status,
        "bytes": size,
        "ms": round(1000 * seconds, 2),
    }
    return json.dumps(content)
