"""The HTTP service: /recall, /similar, /health, /metrics.

Belongs here: routes, their parameters, errors as JSON, counting requests, how many there are at once and how long each may take.
Does not belong here: the lists (`recall_engine.py`), which bundle they come from (`live.py`), what a body may hold
(`request_body.py`), connections (`connections.py`).

A request reads the engine once, so its answer comes from one whole bundle. Searches run in a thread pool with one thread per
core to use; more threads would only wait for each other. Bodies are read as JSON there too, so that /health need not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.serving.id_rows import UnknownIdError
from dssm_assets.serving.live import LiveEngine
from dssm_assets.serving.metrics import CONTENT_TYPE, ServiceMetrics
from dssm_assets.serving.recall_engine import DEFAULT_K, ListOptions, Lists, RecallAnswer, RecallEngine, recall_for_request
from dssm_assets.serving.refusals import BodyTooLargeError, BusyError, RefusedError, SlowRequestError, error_body
from dssm_assets.serving.request_body import (
    SEE_DOCS,
    RecallRequest,
    UnknownUser,
    fault_of,
    parse_filters,
    parse_recall_request,
)
from dssm_assets.serving.request_encoder import UserInputs

JSON: Final = "application/json"
ROUTES: Final = ("/recall", "/similar", "/health", "/metrics")
DRAIN_SECONDS: Final = 2.0
"""Time for which the rest of a refused body is still received: a client that is cut off while it sends may not see the answer."""
ExcludedItems = Annotated[list[str] | None, Query()]
FilterText = Annotated[str | None, Query(description="JSON, as `filters` of the body of POST /recall.")]

_RECALL_BODY: Final = {"required": True, "content": {JSON: {"schema": RecallRequest.model_json_schema()}}}

_log = logging.getLogger(__name__)


class Service:
    """What the routes share: the live engine, the thread pool, the limits and the metrics."""

    def __init__(self, live: LiveEngine, threads: int, limits: ServiceLimits) -> None:
        self.live, self.limits = live, limits
        self.metrics = ServiceMetrics(live)
        self._pool = ThreadPoolExecutor(threads, "recall", initializer=_one_thread_per_search)
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """Searches that wait or run, those whose client was already told that they take too long included."""
        return self._running

    async def respond(self, search: Callable[[RecallEngine], RecallAnswer]) -> Response:
        """Runs a search on the current engine in the thread pool; returns its answer as JSON.

        Raises:
            BusyError: max_requests searches wait or run, or this one has taken request_seconds.
        """
        limits = self.limits
        if self._running >= limits.max_requests:
            expected = f"at most {limits.max_requests} requests at once"
            raise BusyError(Fault("service", expected, f"{self._running} others", "try again later"))
        future = self._start(search)
        try:
            async with asyncio.timeout(limits.request_seconds):
                body = await asyncio.wrap_future(future)
        except TimeoutError as error:
            expected = f"a list in {limits.request_seconds:g} seconds"
            raise BusyError(Fault("service", expected, "none", "try again later, or ask for less")) from error
        return Response(body, media_type=JSON)

    async def read_body(self, request: Request) -> bytes:
        """Returns the body of a request.

        Raises:
            BodyTooLargeError: it has more than max_body_bytes.
            SlowRequestError: it was not sent in transfer_seconds, or the connection closed.
        """
        most, seconds = self.limits.max_body_bytes, self.limits.transfer_seconds
        declared = request.headers.get("content-length")
        if declared is not None and int(declared) > most:
            raise BodyTooLargeError(_body_fault(most, declared))
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise BodyTooLargeError(_body_fault(most, f"{len(body)} or more"))
        except (TimeoutError, ClientDisconnect) as error:
            got, remedy = f"{len(body)} bytes of it", "send the request at once"
            raise SlowRequestError(Fault("body", f"all of it in {seconds:g} seconds", got, remedy)) from error
        return bytes(body)

    def _start(self, search: Callable[[RecallEngine], RecallAnswer]) -> Future[bytes]:
        with self._lock:
            self._running += 1
        future = self._pool.submit(self._run_search, search, self.live.engine)
        future.add_done_callback(self._note_end)
        return future

    def _note_end(self, _: Future[bytes]) -> None:
        with self._lock:
            self._running -= 1

    def _run_search(self, search: Callable[[RecallEngine], RecallAnswer], engine: RecallEngine) -> bytes:
        answer = search(engine)
        self.metrics.answers.labels(answer.source.value).inc()
        return json.dumps(answer.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()

    def health(self) -> dict[str, Any]:
        """Returns the bundle that serves, its age and its size."""
        bundle = self.live.engine.bundle
        day = dt.date.fromisoformat(bundle.ds)
        return {
            "status": "ok" if self.live.refused_bundle_id is None and self.live.list_fault is None else "stale",
            "bundle_id": bundle.bundle_id,
            "name": bundle.name,
            "ds": bundle.ds,
            "age_days": (dt.datetime.now(dt.UTC).date() - day).days,
            "loaded_seconds_ago": round(time.time() - self.live.loaded_at, 3),
            "users": len(bundle.users),
            "items": len(bundle.items),
            "dims": bundle.dims,
            "refused_bundle_id": self.live.refused_bundle_id,
            "list_fault": self.live.list_fault,
        }

    def close(self) -> None:
        """Ends the thread pool without waiting for searches: their requests have been answered."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def build_app(live: LiveEngine, threads: int = 2, limits: ServiceLimits | None = None) -> FastAPI:
    """Returns the application over a live engine; the engine watches for new bundles while the application runs.

    Args:
        live: the engine.
        threads: number of concurrent searches.
        limits: of requests (default: those of an empty configuration). Those of connections need `make_server`.
    """
    service = Service(live, threads, limits or ServiceLimits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.stop()
        service.close()

    app = FastAPI(title="dssm-assets recall", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(_CountRequests, service=service)
    app.add_exception_handler(RequestValidationError, _respond_invalid)
    app.add_exception_handler(DssmError, _respond_error)
    app.add_exception_handler(HTTPException, _respond_no_route)
    app.add_exception_handler(Exception, _respond_failure)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/recall")
    async def recall(
        user_id: str,
        k: int = DEFAULT_K,
        exclude: ExcludedItems = None,
        exclude_history: bool = False,
        filters: FilterText = None,
        unknown: UnknownUser = "popular",
        channels: Lists | None = None,
    ) -> Response:
        """Items for a stored user, merged from all channels, or of the vectors alone."""
        return await service.respond(
            lambda engine: recall_for_request(
                engine,
                user_id=user_id,
                options=ListOptions(k, exclude or (), parse_filters(filters), exclude_history, channels),
                is_popular_for_unknown=unknown == "popular",
            )
        )

    @app.post("/recall", openapi_extra={"requestBody": _RECALL_BODY})
    async def recall_by_body(request: Request) -> Response:
        """Items for a user given by features, or for a stored user."""
        content = await service.read_body(request)

        def search(engine: RecallEngine) -> RecallAnswer:
            body = parse_recall_request(content, service.limits)
            return recall_for_request(
                engine,
                user_id=body.user_id,
                inputs=UserInputs(body.features, body.history),
                options=body.options,
                is_popular_for_unknown=body.unknown == "popular",
            )

        return await service.respond(search)

    @app.get("/similar")
    async def similar(item_id: str, k: int = DEFAULT_K, exclude: ExcludedItems = None, filters: FilterText = None) -> Response:
        """The items that are most similar to an item."""
        return await service.respond(
            lambda engine: engine.similar_items(item_id, ListOptions(k, exclude or (), parse_filters(filters)))
        )

    @app.get("/health")
    async def health() -> Response:
        """The bundle that serves, its age and its size."""
        return Response(json.dumps(service.health()), media_type=JSON)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def _one_thread_per_search() -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # A request is one search; the pool uses the cores.


def _body_fault(most: int, got: str) -> Fault:
    return Fault("body", f"at most {most} bytes", got, "send less, or raise serving.limits.max_body_bytes of the service")


async def _respond_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, InputError):
        _log.error("%s failed: %s", request.url.path, error)
        return _error_response(request, 500, type(error).__name__, [])
    status = error.status if isinstance(error, RefusedError) else 404 if isinstance(error, UnknownIdError) else 400
    return _error_response(request, status, type(error).__name__, error.faults)


async def _respond_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _error_response(request, 400, "InputError", [fault_of(item) for item in error.errors()])


async def _respond_no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fault = Fault("request", "a route and its method", f"{request.method} {request.url.path[:120]}", SEE_DOCS)
    response = _error_response(request, error.status_code, "InputError", [fault])
    response.headers.update(error.headers or {})
    return response


async def _respond_failure(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service  # The middleware has counted the error.
    return _make_error(500, type(error).__name__, [], service.limits)


def _error_response(request: Request, status: int, error: str, faults: Sequence[Fault]) -> Response:
    service: Service = request.app.state.service
    path = request.url.path
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


class _CountRequests:
    """Counts requests and measures their time. Paths without a route share the label `other`, so that labels stay few.

    A request that is still running when the time of a shutdown is over is answered here.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics, self._limits = app, service.metrics, service.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        start, status = time.perf_counter(), 0

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
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
