"""The HTTP service: /recall, /recall/batch, /similar, /health, /ready, /metrics, and its description in /docs.

Belongs here: routes, errors as JSON, counting requests, how many there are at once and how long each may take.
Does not belong here: the lists (`recall_engine.py`), which bundle they come from (`live.py`), what a query or a body may hold
(`request_body.py`), the form of answers (`answers.py`), connections (`connections.py`).

Nothing here takes long, so that /health never waits: the engine's threads, which are in another process (`engine_process.py`), read
queries and bodies, search and write the answer. FastAPI knows the routes of lists for /docs alone: `_ListRoutes` answers them, because
FastAPI's way to a function takes as long as all the rest of the event loop's work on a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.serving.access import DOCS
from dssm_assets.serving.answers import (
    KEYS,
    OPTIONAL_KEYS,
    BatchAnswer,
    Health,
    ItemList,
    Readiness,
    Refusal,
    describe_lists,
    describe_refusals,
)
from dssm_assets.serving.calls import ARROW, JSON, Call, Reply, Route
from dssm_assets.serving.engine_process import EngineClient
from dssm_assets.serving.id_rows import UnknownIdError
from dssm_assets.serving.metrics import CONTENT_TYPE, ServiceMetrics
from dssm_assets.serving.refusals import BodyTooLargeError, BusyError, RefusedError, SlowRequestError, error_body
from dssm_assets.serving.request_body import SEE_DOCS, BatchRequest, RecallQuery, RecallRequest, SimilarQuery
from dssm_assets.serving.traces import STAGES, RequestTracer

ROUTES: Final = ("/recall", "/recall/batch", "/similar", "/health", "/ready", "/metrics")
PROBES: Final = ("/health", "/ready")
DRAIN_SECONDS: Final = 2.0
"""Time for which the rest of a refused body is still received: a client that is cut off while it sends may not see the answer."""
REQUESTS_PER_TURN: Final = 8
"""Requests that go on in one turn of the event loop; each takes some tenths of a millisecond there."""
CLIENT_LEFT: Final = 499
"""Status under which requests are counted whose client left before they began; others use this number, too."""

_LISTS: Final = {(route.partition(" ")[0], route.partition(" ")[2]): route for route in Route}
_CONTENT_TYPES: Final = tuple((b"content-type", kind.encode()) for kind in (JSON, ARROW))

_log = logging.getLogger(__name__)


class Service:
    """What the routes share: the engine, the limits and the metrics."""

    def __init__(self, engine: EngineClient, limits: ServiceLimits, tracer: RequestTracer | None = None) -> None:
        self.engine, self.limits, self.tracer = engine, limits, tracer
        self.metrics = ServiceMetrics(lambda: engine.state)
        self.on_loss: Callable[[], None] = lambda: None
        """Called if the process of the engine ends."""
        self._computing: set[asyncio.Future[Reply]] = set()

    @property
    def running(self) -> int:
        """Lists that wait or are computed, those whose client already has the answer that they take too long included."""
        return len(self._computing)

    def check_room(self) -> None:
        """Does nothing if one more list can be computed.

        Raises:
            BusyError: max_requests lists wait or are computed.
        """
        if self.running >= self.limits.max_requests:
            expected = f"at most {self.limits.max_requests} requests at once"
            raise BusyError(Fault("service", expected, f"{self.running} others", "try again later"))

    async def compute(self, call: Call) -> Reply:
        """Returns the answer of a call.

        Raises:
            DssmError: what the call asks for cannot be answered.
            BusyError: max_requests calls wait or are computed, or this one has lasted request_seconds.
        """
        self.check_room()
        computing = self.engine.compute(call)
        self._computing.add(computing)
        computing.add_done_callback(self._note_end)
        seconds = self.limits.request_seconds
        await asyncio.wait([computing], timeout=seconds)  # which goes on without its client
        if not computing.done():
            raise BusyError(Fault("service", f"a list in {seconds:g} seconds", "none", "try again later, or ask for less"))
        try:
            reply = computing.result()
        finally:
            del computing  # An error would refer to this frame, and the frame to the error.
        for source, count in reply.sources.items():
            self.metrics.answers.labels(source).inc(count)
        return reply

    async def read_body(self, scope: Scope, receive: Receive) -> bytes:
        """Returns the body of a request.

        Raises:
            BodyTooLargeError: it has more than max_body_bytes.
            SlowRequestError: it was not sent in transfer_seconds, or the connection closed.
        """
        most, seconds = self.limits.max_body_bytes, self.limits.transfer_seconds
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if declared is not None and int(declared) > most:
            raise BodyTooLargeError(_body_fault(most, declared.decode()))
        body, is_whole = bytearray(), False
        try:
            async with asyncio.timeout(seconds):
                while not is_whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    body += message.get("body", b"")
                    is_whole = not message.get("more_body", False)
                    if len(body) > most:
                        raise BodyTooLargeError(_body_fault(most, f"{len(body)} or more"))
        except (TimeoutError, ClientDisconnect) as error:
            got, remedy = f"{len(body)} bytes of it", "send the request at once"
            raise SlowRequestError(Fault("body", f"all of it in {seconds:g} seconds", got, remedy)) from error
        return bytes(body)

    def _note_end(self, computing: asyncio.Future[Reply]) -> None:
        self._computing.discard(computing)
        if not computing.cancelled():
            computing.exception()  # else reported as never retrieved, if the client has been answered already

    def health(self) -> dict[str, Any]:
        """Returns the bundle that serves, its age and its size."""
        state = self.engine.state
        day = dt.date.fromisoformat(state.ds)
        return {
            "status": "ok" if state.refused_bundle_id is None and state.list_fault is None else "stale",
            "bundle_id": state.bundle_id,
            "name": state.name,
            "ds": state.ds,
            "age_days": (dt.datetime.now(dt.UTC).date() - day).days,
            "loaded_seconds_ago": round(time.time() - state.loaded_at, 3),
            "users": state.users,
            "items": state.items,
            "dims": state.dims,
            "refused_bundle_id": state.refused_bundle_id,
            "list_fault": state.list_fault,
        }


def build_app(engine: EngineClient, limits: ServiceLimits | None = None, tracer: RequestTracer | None = None) -> FastAPI:
    """Returns the application over an engine.

    Args:
        limits: of requests (default: those of an empty configuration). Those of connections need `make_server`.
        tracer: makes spans of requests; None: there are none.
    """
    service = Service(engine, limits or ServiceLimits(), tracer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.open(service.on_loss)
        yield
        await engine.close()
        if tracer is not None:
            tracer.close()

    app = FastAPI(
        title="dssm-assets recall",
        version=importlib.metadata.version("dssm-assets"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.add_exception_handler(HTTPException, _respond_no_route)
    app.add_exception_handler(Exception, _respond_failure)
    _describe_lists(app)
    _add_docs(app)
    _add_routes(app, service)
    return app


class _ListRoutes:
    """The routes whose answers are lists; all other requests go on to an application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _LISTS.get((scope.get("method", ""), scope.get("path", "")))
        if route is None:
            await self._app(scope, receive, send)
            return
        service = self._service
        try:
            is_query = scope["method"] == "GET"
            content = scope["query_string"] if is_query else await service.read_body(scope, receive)
            is_arrow = any(name == b"accept" and ARROW.encode() in value for name, value in scope["headers"])
            reply = await service.compute(Call(route, content, is_arrow, service.tracer is not None))
        except DssmError as error:
            await _respond_refused(service, scope["path"], error)(scope, receive, send)
            return
        scope[STAGES] = reply.stages
        headers = [(b"content-length", str(len(reply.body)).encode()), _CONTENT_TYPES[is_arrow]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _describe_lists(app: FastAPI) -> None:
    """Adds the routes of lists to /docs and to the answer to another method. Their functions are not called; see `_ListRoutes`."""

    @app.get("/recall", response_model=ItemList, responses=describe_lists(404), dependencies=KEYS, openapi_extra=OPTIONAL_KEYS)
    async def recall(query: Annotated[RecallQuery, Query()]) -> None:
        """Items for a stored user, merged from all channels, or of the vectors alone."""

    @app.post(
        "/recall", response_model=ItemList, responses=describe_lists(404, 413), dependencies=KEYS, openapi_extra=OPTIONAL_KEYS
    )
    async def recall_by_body(body: RecallRequest) -> None:
        """Items for a stored user, for one given by features and history, or for a stored user after further events."""

    @app.post(
        "/recall/batch",
        response_model=BatchAnswer,
        responses=describe_lists(413),
        dependencies=KEYS,
        openapi_extra=OPTIONAL_KEYS,
    )
    async def recall_batch(body: BatchRequest) -> None:
        """Items for many users: `answers` has for each request, in their order, what POST /recall answers, or its error."""

    @app.get("/similar", response_model=ItemList, responses=describe_lists(404), dependencies=KEYS, openapi_extra=OPTIONAL_KEYS)
    async def similar(query: Annotated[SimilarQuery, Query()]) -> None:
        """The items that are most similar to an item."""


def _add_docs(app: FastAPI) -> None:
    """Adds / and /docs. Its scripts come from a package, not from the internet; addresses are relative, for a proxy with a prefix."""
    app.mount(f"{DOCS}/ui", StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @app.get("/", include_in_schema=False)
    async def lead_to_docs() -> Response:
        return RedirectResponse("docs")

    @app.get(DOCS, include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/ui/swagger-ui-bundle.js",
            swagger_css_url="docs/ui/swagger-ui.css",
            swagger_favicon_url="docs/ui/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # which would send the address of the service to its makers
        )


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=Health, responses=describe_refusals())
    async def health() -> Response:
        """The bundle that serves, its age and its size."""
        return Response(json.dumps(service.health()), media_type=JSON)

    @app.get(
        "/ready",
        response_model=Readiness,
        responses={503: {"model": Readiness | Refusal, "description": "Not now; a refusal during a shutdown."}},
    )
    async def ready() -> Response:
        """Whether lists are answered now: status 503 while as many as max_requests wait, and after the engine has ended."""
        is_ready = not service.engine.is_lost and service.running < service.limits.max_requests
        return Response(json.dumps({"is_ready": is_ready}), 200 if is_ready else BusyError.status, media_type=JSON)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def _body_fault(most: int, got: str) -> Fault:
    return Fault("body", f"at most {most} bytes", got, "send less, or raise serving.limits.max_body_bytes of the service")


def _respond_refused(service: Service, path: str, error: DssmError) -> Response:
    if not isinstance(error, InputError):
        _log.error("%s failed: %s", path, error)
        return _error_response(service, path, 500, type(error).__name__, [])
    status = error.status if isinstance(error, RefusedError) else 404 if isinstance(error, UnknownIdError) else 400
    return _error_response(service, path, status, type(error).__name__, error.faults)


async def _respond_no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fault = Fault("request", "a route and its method", f"{request.method} {request.url.path[:120]}", SEE_DOCS)
    service: Service = request.app.state.service
    response = _error_response(service, request.url.path, error.status_code, "InputError", [fault])
    response.headers.update(error.headers or {})
    return response


async def _respond_failure(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service  # The middleware has counted the error.
    return _make_error(500, type(error).__name__, [], service.limits)


def _error_response(service: Service, path: str, status: int, error: str, faults: Sequence[Fault]) -> Response:
    service.metrics.errors.labels(path if path in ROUTES else "other", error).inc()
    return _make_error(status, error, faults, service.limits)


def _make_error(status: int, error: str, faults: Sequence[Fault], limits: ServiceLimits) -> Response:
    headers = {"retry-after": str(limits.retry_after_seconds)} if status == BusyError.status else {}
    kind = _UnreadBodyResponse if status in (BodyTooLargeError.status, SlowRequestError.status) else Response
    return kind(error_body(error, faults, limits.max_faults), status, headers, JSON)


class _UnreadBodyResponse(Response):
    """An answer to a request whose body is not wanted; receives the rest of it for a moment, then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


class _Turnstile:
    """Lets a few requests go on in each turn of the event loop, in their order: those of hundreds of clients at once take turns
    with whatever else is to do."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[bool], Callable[[], bool]]] = deque()

    async def wait(self, is_gone: Callable[[], bool]) -> bool:
        """Waits until the request may go on; returns False if nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._let_some_go_on, loop)
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((turn, is_gone))
        return await turn

    def _let_some_go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        count = 0
        while self._waiting and count < REQUESTS_PER_TURN:
            turn, is_gone = self._waiting.popleft()
            if not turn.done():
                is_wanted = not is_gone()
                turn.set_result(is_wanted)
                count += is_wanted
        if self._waiting:
            loop.call_soon(self._let_some_go_on, loop)


class CountedRequests:
    """The application with its requests counted and their time measured.

    Paths without a route share the label `other`, so that labels stay few. All but probes pass the turnstile. A request that is still running when the time of a shutdown is over is answered here.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics, self._limits = _ListRoutes(app, service), service.metrics, service.limits
        self._tracer = service.tracer
        self._turnstile = _Turnstile()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        start, status = time.perf_counter(), 0
        start_ns = 0 if self._tracer is None else time.time_ns()

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if route not in PROBES and not await self._turnstile.wait(lambda: _is_disconnected(receive)):
                status = CLIENT_LEFT
                return
            await self._app(scope, receive, send_and_note_status)
        except asyncio.CancelledError:
            if status:
                raise
            faults = [Fault("service", "time for the list", "a shutdown", "try again later")]
            response = _make_error(BusyError.status, BusyError.__name__, faults, self._limits)
            await response(scope, receive, send_and_note_status)
        except Exception as error:
            self._metrics.errors.labels(route, type(error).__name__).inc()
            raise
        finally:
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
            self._metrics.requests.labels(route, str(status or 500)).inc()
            if self._tracer is not None:
                self._tracer.record(scope, route, status or 500, start_ns, time.time_ns())


def _is_disconnected(receive: Receive) -> bool:
    """Returns whether the connection of a request is closed; `receive` is a method of uvicorn's state of the request."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport is not None and transport.is_closing()
