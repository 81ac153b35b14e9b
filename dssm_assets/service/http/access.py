"""Checks the API key of each request, and records the request: its id, metrics, spans, one line of JSON per answer.

The id is the client's `X-Request-Id`, or a new id; the answer has it, too. /health, /ready and /metrics need no key and are not
logged. /docs and its scripts need no key, because a browser sends a key only after the user gives it to the page. A line names
the key, and the user by a hash (for a batch the number of users), never by an id. The secret of the hashes is DSSM_LOG_SECRET,
or a new secret at each start. Does not belong here: the file of the keys (`api_keys.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.errors import Fault
from dssm_assets.service.engine.recall_engine import AnswerHook, UserRequest
from dssm_assets.service.http.answers import RETRY_AFTER, BusyError, ForbiddenError, UnauthorizedError, error_content
from dssm_assets.service.http.api_keys import ApiKey, KeyScope, LiveKeys
from dssm_assets.service.http.request_body import Requests
from dssm_assets.service.http.telemetry import ServiceMetrics, Tracer

OPEN_ROUTES: Final = ("/health", "/ready", "/metrics")
BATCH: Final = "/recall/batch"
SHOWN: Final = "/shown"
SCOPES: Final = {
    "/recall": KeyScope.RECALL,
    BATCH: KeyScope.RECALL,
    "/similar": KeyScope.SIMILAR,
    SHOWN: KeyScope.RECALL,
}
"""Route -> scope that a key needs for it."""
ROUTES: Final = (*SCOPES, *OPEN_ROUTES)
DOCS: Final = "/docs"
_PAGES: Final = ("/", "/openapi.json", DOCS)
REQUEST_ID: Final = b"x-request-id"
CLIENT_LEFT: Final = 499
"""Logged as status if the client left before its answer began."""
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REMEDY: Final = "send the header Authorization: Bearer KEY, or X-API-Key: KEY"

_KEY, _USERS, _ID = "dssm_assets.key", "dssm_assets.users", "dssm_assets.request_id"
"""Keys of a request's scope: its API key, the requested users as text, and its id where answers are kept."""

_log = logging.getLogger(__name__)


def check_requests(scope: Scope, requests: Requests) -> Requests:
    """Replaces each request that the key may not send by an error. Notes the users for the log."""
    key, users = scope.get(_KEY), (one.user_id for one in requests if isinstance(one, UserRequest))
    scope[_USERS] = {str(user) for user in users if user is not None}
    if key is None or key.allows(KeyScope.EVENTS):
        return requests
    return [_forbid(key, KeyScope.EVENTS) if isinstance(one, UserRequest) and one.inputs.events else one for one in requests]


def name_requests(scope: Scope, requests: Requests) -> Requests:
    """Gives each request the id of its answer: that of the HTTP request; in a batch with the request's number."""
    ids = [scope[_ID]] if scope["path"] != BATCH else [f"{scope[_ID]}-{number}" for number in range(len(requests))]
    return [
        replace(one, request_id=request_id) if isinstance(one, UserRequest) else one
        for one, request_id in zip(requests, ids, strict=True)
    ]


class RequestGate:
    """Wraps the application: checks keys; counts, times, traces and logs each request; adds the id to the answer.

    Paths without a route share the label `other`, so that labels stay few.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServiceMetrics,
        tracer: Tracer | None = None,
        keys: LiveKeys | None = None,
        log: Callable[[str], None] | None = None,
        hook: AnswerHook | None = None,
    ) -> None:
        self._hook = hook
        self._app, self._metrics, self._tracer, self._log = app, metrics, tracer, log
        self._keys, self._secret = keys, os.environ.get("DSSM_LOG_SECRET", "").encode() or secrets.token_bytes()
        if keys is not None:
            metrics.keys_stale.set_function(lambda: keys.fault is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        route, is_open = path if path in ROUTES else "other", path in OPEN_ROUTES
        given = headers.get(REQUEST_ID, b"")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        if self._hook is not None:
            scope[_ID] = request_id.decode()
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
            needs_key = not (is_open or path in _PAGES or path.startswith(f"{DOCS}/"))
            refusal = self._check_key(scope, headers) if needs_key else None
            await (self._app if refusal is None else refusal)(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except asyncio.CancelledError:
            if status:
                raise
            busy = BusyError(Fault("service", "time for the list", "a shutdown", "try again later"))
            await _refuse(busy, RETRY_AFTER)(scope, receive, send_with_id)
        except Exception as error:
            _log.exception("%s failed", route)
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
                self._log(self._line(scope, request_id, status, size, seconds))

    def _check_key(self, scope: Scope, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
        """Notes the key of a request. Returns a refusal if the key is unknown, has ended, or lacks the route's scope."""
        if self._keys is None:
            return None
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = [headers.get(b"x-api-key", b""), bearer.strip() if scheme.lower() == b"bearer" else b""]
        key, needed = self._keys.find(given), SCOPES.get(scope["path"])
        scope[_KEY] = key
        if key is None or key.has_ended:
            got = "none or another" if key is None else f"{key.name}, whose last day was {key.last_day}"
            fault = Fault("request", "an API key of this service", got, _REMEDY)
            return _refuse(UnauthorizedError(fault), {"www-authenticate": "Bearer"})
        return None if needed is None or key.allows(needed) else _refuse(_forbid(key, needed))

    def _line(self, scope: Scope, request_id: bytes, status: int, size: int, seconds: float) -> str:
        path, client, key, users = scope["path"], scope.get("client"), scope.get(_KEY), scope.get(_USERS, ())
        hashes = [hmac.digest(self._secret, user.encode(), "sha256").hex()[:32] for user in users if path != BATCH]
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": request_id.decode(),
            "client": client[0] if client else None,
            "key": key.name if key else None,
            "user": hashes[0] if hashes else None,
            "users": len(users),
            "method": scope["method"],
            "path": path if path in (*ROUTES, *_PAGES) else "other",
            "status": status,
            "bytes": size,
            "ms": round(1000 * seconds, 2),
        }
        return json.dumps(content)


def _forbid(key: ApiKey, scope: KeyScope) -> ForbiddenError:
    remedy = "use another key, or add the scope to its line"
    return ForbiddenError(Fault(f"API key {key.name}", f"the scope {scope}", ", ".join(sorted(key.scopes)), remedy))


def _refuse(error: UnauthorizedError | ForbiddenError | BusyError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error_content(type(error).__name__, error.faults), error.status, headers)
