"""The HTTP service: /recall, /recall/batch, /similar, /health, /ready, /metrics, and its description in /docs.

One process answers. Its event loop receives, parses small bodies and sends; a pool of threads computes lists. So /health
does not wait for lists. Belongs here: routes, receiving bodies. Does not belong here: which lists are computed together
(`list_queue.py`), the current bundle (`live.py`), queries and bodies (`request_body.py`), the form of answers (`answers.py`),
permissions (`access.py`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, Fault, InputError, StorageError
from dssm_assets.installed_extras import load_extra
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import UserRequest
from dssm_assets.service.http.access import DOCS, ROUTES, RequestGate, check_requests, name_requests
from dssm_assets.service.http.answers import (
    ARROW,
    JSON,
    RETRY_AFTER,
    SECTIONS,
    SECURITY,
    BatchAnswer,
    BodyTooLargeError,
    BusyError,
    DocsSection,
    Health,
    Readiness,
    Refusal,
    describe_lists,
    describe_refusals,
    error_content,
)
from dssm_assets.service.http.api_keys import LiveKeys
from dssm_assets.service.http.list_queue import ListQueue, busy
from dssm_assets.service.http.request_body import (
    BATCH_EXAMPLES,
    RECALL_EXAMPLES,
    SEE_DOCS,
    BatchRequest,
    NoQuery,
    RecallQuery,
    RecallRequest,
    Requests,
    SimilarQuery,
    parse_batch_body,
    parse_query,
    parse_recall_body,
    read_query,
)
from dssm_assets.service.http.telemetry import CONTENT_TYPE, STAGES, ServiceMetrics, StageClock, Tracer

SMALL_BODY_BYTES: Final = 1 << 16
"""Bodies larger than this are parsed one at a time."""
MAX_WAITING_BYTES: Final = 1 << 26
"""Most bytes of all bodies that are arriving, waiting or being computed."""
_log = logging.getLogger(__name__)


class Service:
    """The objects shared by all routes: the engine, the queue of lists, the limits and the metrics."""

    def __init__(self, live: LiveEngine, limits: ServiceLimits, threads: int) -> None:
        self.live, self.limits = live, limits
        self.metrics = ServiceMetrics(lambda: live.state)
        self.queue = ListQueue(live, threads, limits.request_seconds)
        self._waiting_bytes = 0
        self._parsing = asyncio.Lock()

    @property
    def has_room(self) -> bool:
        return len(self.queue) < self.limits.max_requests

    async def answer(
        self, request: Request, parse: Callable[[], Requests], *, is_batch: bool = False, is_large: bool = False
    ) -> Response:
        """Returns the response with lists for the requests from `parse`.

        Raises:
            DssmError: `parse` raised it, or there is no single list.
            BusyError: too many requests wait or are computed, or this request has lasted request_seconds.
        """
        self._check_room()
        clock = StageClock()
        requests = check_requests(request.scope, await self._parse_alone(parse) if is_large else parse())
        if self.live.hook is not None:
            requests = name_requests(request.scope, requests)
        clock.end("parse")
        self._check_room()  # others may have come meanwhile
        is_arrow = ARROW in request.headers.get("accept", "")
        if is_arrow and any(isinstance(one, UserRequest) and one.options.explain for one in requests):
            raise InputError(Fault("explain", "an answer in JSON", f"accept: {ARROW}", "send accept: application/json"))
        reply = await self.queue.compute(requests, clock.stages[0], is_batch=is_batch, is_arrow=is_arrow)
        request.scope[STAGES] = reply.stages
        for source, count in reply.sources.items():
            self.metrics.answers.labels(source).inc(count)
        return Response(reply.body, media_type=ARROW if is_arrow else JSON)

    async def _parse_alone(self, parse: Callable[[], Requests]) -> Requests:
        """Parses in a thread, one large body at a time. Afterwards the event loop gets as much time for everything else.

        Raises:
            BusyError: other bodies have been parsed for request_seconds.
        """
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                await self._parsing.acquire()
        except TimeoutError as error:
            raise busy(f"time for the body in {self.limits.request_seconds:g} seconds", "none") from error
        start = time.monotonic()
        try:
            return await asyncio.to_thread(_parse_without_collecting, parse)
        finally:
            asyncio.get_running_loop().call_later(time.monotonic() - start, self._parsing.release)

    def _check_room(self) -> None:
        if not self.has_room:
            raise busy(f"fewer than {self.limits.max_requests} requests at once", str(len(self.queue)))

    @asynccontextmanager
    async def receive_body(self, request: Request) -> AsyncIterator[bytearray]:
        """Yields the body of a request. Its bytes count as used until the request is answered.

        Raises:
            InputError: the query has a parameter.
            BodyTooLargeError: the body has more than max_body_bytes.
            BusyError: the body has not arrived in request_seconds, or other bodies take the memory.
        """
        await refuse_parameters(request)
        most, body = self.limits.max_body_bytes, bytearray()
        size = int(request.headers.get("content-length", 0))
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._waiting_bytes += len(chunk)
                    if max(size, len(body)) > most:
                        remedy = "send less, or raise serving.limits.max_body_bytes of the service"
                        got = str(size or f"{len(body)} or more")
                        raise BodyTooLargeError(Fault("body", f"at most {most} bytes", got, remedy))
                    if self._waiting_bytes > MAX_WAITING_BYTES:
                        raise busy(f"at most {MAX_WAITING_BYTES} bytes of bodies at once", str(self._waiting_bytes))
            yield body
        except TimeoutError as error:
            raise busy(f"a whole body in {self.limits.request_seconds:g} seconds", f"{len(body)} bytes") from error
        finally:
            self._waiting_bytes -= len(body)

    def refuse(self, request: Request, error: str, faults: Sequence[Fault], status: int) -> Response:
        path = request.url.path
        self.metrics.errors.labels(path if path in ROUTES else "other", error).inc()
        return JSONResponse(error_content(error, faults), status, RETRY_AFTER if status == BusyError.status else None)


async def refuse_parameters(request: Request) -> None:
    """Raises an InputError that names all parameters of a query. For routes without parameters."""
    read_query(NoQuery, request.scope["query_string"])


def _parse_without_collecting(parse: Callable[[], Requests]) -> Requests:
    """Parses a body of many lists without garbage collection, which would visit all objects of the process again and again."""
    gc.disable()
    try:
        return parse()
    finally:
        gc.enable()


def build_app(
    live: LiveEngine,
    limits: ServiceLimits | None = None,
    tracer: Tracer | None = None,
    *,
    threads: int = 2,
    keys: LiveKeys | None = None,
    log: Callable[[str], None] | None = None,
) -> FastAPI:
    """Returns the application over an engine.

    Args:
        limits: limits of the service (default: the defaults of the configuration). keep_alive_seconds and shutdown_seconds are
            options of uvicorn.
        tracer: makes spans of requests; None: no spans.
        threads: number of threads that compute lists.
        keys: API keys; None: requests need no key.
        log: called with a line of JSON for each answer; None: no log.
    """
    service = Service(live, limits or ServiceLimits(), threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.watches.start()
        yield
        live.watches.stop()
        await asyncio.sleep(0.1)  # time to answer requests that were cancelled after shutdown_seconds
        service.queue.close()
        if tracer is not None:
            tracer.close()
        if live.hook is not None:
            live.hook.close()

    app = FastAPI(
        title="dssm-assets recall",
        version=importlib.metadata.version("dssm-assets"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        openapi_tags=[{"name": name.value, "description": text} for name, text in SECTIONS.items()],
        dependencies=[Depends(refuse_parameters)],  # for all routes except _ListRoute, which read their queries
    )
    app.add_middleware(RequestGate, metrics=service.metrics, tracer=tracer, keys=keys, log=log, hook=live.hook)
    router = _list_routes(service)
    if live.hook is not None:
        load_extra("shown", "route").add_route(router, service.receive_body, live.hook)
    app.include_router(router)
    _add_routes(app, service)
    _add_error_handlers(app, service)
    _add_docs(app)
    return app


class _ListRoute(APIRoute):
    """A route with a function that reads the query or the body itself. Its signature only describes them in /docs.

    If FastAPI read them, this would take as long as all other work of the event loop on a request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            response: Response = await self.endpoint(request, None)
            return response

        return answer


def _list_routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=_ListRoute, dependencies=SECURITY, tags=[DocsSection.LISTS])

    @router.get("/recall", summary="Items for a user", **describe_lists(404))
    async def recall(request: Request, _: Annotated[RecallQuery, Query()]) -> Response:
        """Items for a stored user, merged from all channels or from the vectors alone."""
        return await service.answer(request, partial(parse_query, RecallQuery, request.scope["query_string"]))

    @router.post("/recall", summary="Items for a user, by a body", **describe_lists(404, 413))
    async def recall_by_body(request: Request, _: Annotated[RecallRequest, Body(openapi_examples=RECALL_EXAMPLES)]) -> Response:
        """Items for a stored user, for a user given by features and history, or for a stored user after further events."""
        async with service.receive_body(request) as body:
            return await service.answer(request, partial(parse_recall_body, body), is_large=len(body) > SMALL_BODY_BYTES)

    @router.post("/recall/batch", summary="Items for many users", **describe_lists(413, answer=BatchAnswer))
    async def recall_batch(request: Request, _: Annotated[BatchRequest, Body(openapi_examples=BATCH_EXAMPLES)]) -> Response:
        """Items for many users. `answers` has, for each request in order, the answer of POST /recall or its error."""
        async with service.receive_body(request) as body:
            return await service.answer(request, partial(parse_batch_body, body), is_batch=True, is_large=True)

    @router.get("/similar", summary="Items like an item", **describe_lists(404))
    async def similar(request: Request, _: Annotated[SimilarQuery, Query()]) -> Response:
        """The items that are most similar to an item."""
        return await service.answer(request, partial(parse_query, SimilarQuery, request.scope["query_string"]))

    return router


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=[DocsSection.STATE], summary="The bundle that serves", responses=describe_refusals())
    async def health() -> Health:
        """The bundle that serves, its age and its size."""
        state = service.live.state
        return Health(
            status="stale" if state.is_stale else "ok",
            age_days=(dt.datetime.now(dt.UTC).date() - dt.date.fromisoformat(state.ds)).days,
            loaded_seconds_ago=round(time.time() - state.loaded_at, 3),
            **{name: value for name, value in asdict(state).items() if name in Health.model_fields},
        )

    @app.get(
        "/ready",
        tags=[DocsSection.STATE],
        summary="Whether lists are answered now",
        response_model=Readiness,
        responses={503: {"model": Readiness | Refusal, "description": "Not now; a refusal during a shutdown."}},
    )
    async def ready() -> Response:
        """Whether lists are answered now: status 503 while as many as max_requests wait."""
        return JSONResponse({"is_ready": service.has_room}, 200 if service.has_room else BusyError.status)

    @app.get("/metrics", tags=[DocsSection.STATE], summary="Metrics of Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        fault = Fault("request", "a route and its method", f"{request.method} {request.url.path[:120]}", SEE_DOCS)
        return service.refuse(request, "InputError", [fault], error.status_code)

    @app.exception_handler(DssmError)
    async def refuse(request: Request, error: DssmError) -> Response:
        if isinstance(error, InputError):
            return service.refuse(request, type(error).__name__, error.faults, getattr(error, "status", 400))
        _log.error("%s failed: %s", request.url.path, error)
        return service.refuse(request, type(error).__name__, [], BusyError.status if isinstance(error, StorageError) else 500)


def _add_docs(app: FastAPI) -> None:
    """Adds / and /docs. Scripts come from a package, not from the internet. Addresses are relative, for a proxy with a prefix."""
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
            swagger_ui_parameters={"validatorUrl": None},  # the validator would send the service's address to its makers
        )
