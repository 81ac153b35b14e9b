"""The HTTP service: /recall, /recall/batch, /similar, /health, /ready, /metrics, and its description in /docs.

One process answers: its event loop receives, parses small bodies and sends, a pool of threads computes lists. So /health does not wait for
lists. Belongs here: routes, how many lists are computed at once and how long each may take. Does not belong here: the lists
(`recall_engine.py`), which bundle they come from (`live.py`), queries and bodies (`request_body.py`), the form of answers
(`answers.py`), who may ask (`access.py`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import importlib.metadata
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Final

import faiss
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, Fault, InputError, StorageError
from dssm_assets.core.retrieval.item_filter import count_conditions
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import DEFAULT_K, RecallAnswer, RecallEngine, UserRequest
from dssm_assets.service.http.access import DOCS, ROUTES, RequestGate, check_requests
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
    Reply,
    describe_lists,
    describe_refusals,
    error_content,
    render,
)
from dssm_assets.service.http.api_keys import LiveKeys
from dssm_assets.service.http.request_body import (
    BATCH_EXAMPLES,
    MAX_ITEMS,
    RECALL_EXAMPLES,
    SEE_DOCS,
    BatchRequest,
    NoQuery,
    RecallQuery,
    RecallRequest,
    SimilarQuery,
    count_items,
    parse_batch_body,
    parse_query,
    parse_recall_body,
    read_query,
)
from dssm_assets.service.http.telemetry import CONTENT_TYPE, STAGES, RequestTracer, ServiceMetrics, Stage, StageClock

ANSWERED_TOGETHER: Final = 16
"""Single lists that a thread takes together, at most."""
GATHER_SECONDS: Final = 0.003
"""Encoding the features of one user takes longer."""
COMPUTED_TOGETHER: Final = 100
"""Requests of a batch that are computed at once, at most: FAISS needs memory for all of them."""
ITEMS_TOGETHER: Final = COMPUTED_TOGETHER * DEFAULT_K
"""Items that they ask for, at most, unless it is one request."""
COMPARED_TOGETHER: Final = 10_000_000
"""Comparisons of an item with a condition that they need, at most, unless it is one request: about .1 s."""
SMALL_BODY_BYTES: Final = 1 << 16
"""A larger body is parsed while no other one is."""
MAX_WAITING_BYTES: Final = 1 << 26
"""Of all bodies that arrive, wait or are computed."""
Requests = Sequence[UserRequest | InputError]
"""The lists that are asked for, or why one cannot be."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Call:
    """A request that waits for a thread: for a single list, or for a batch."""

    requests: Requests
    is_batch: bool
    is_arrow: bool
    ends_at: float
    """When its client has given up, by the clock of time.monotonic."""
    parsed: Stage
    reply: asyncio.Future[Reply]

    @property
    def has_inputs(self) -> bool:
        return any(isinstance(one, UserRequest) and not one.inputs.is_empty for one in self.requests)


class Service:
    """The things that routes share: the engine, its threads, the limits and the metrics."""

    def __init__(self, live: LiveEngine, limits: ServiceLimits, threads: int) -> None:
        self.live, self.limits = live, limits
        self.metrics = ServiceMetrics(lambda: live.state)
        # Each searches on one core: together they use all.
        self.threads = ThreadPoolExecutor(threads, "recall", faiss.omp_set_num_threads, (1,))
        self._num_threads = self._idle = threads
        """Of the threads, those that have not been called for single lists."""
        self._waiting: deque[_Call] = deque()
        """Single lists that no thread has taken."""
        self._encoded_together = 0
        """Lists with inputs that were last taken at once."""
        self._computing: dict[_Call, int] = {}
        """Items that the batches among the calls ask for, of each call that waits or is computed; 0 for single lists."""
        self._waiting_bytes = 0
        self._parsing = asyncio.Lock()

    @property
    def has_room(self) -> bool:
        """Whether fewer than max_requests lists wait or are computed."""
        return len(self._computing) < self.limits.max_requests

    async def answer(
        self, request: Request, parse: Callable[[], Requests], *, is_batch: bool = False, is_large: bool = False
    ) -> Response:
        """Returns the response with the lists of the requests that `parse` returns, computed in a thread from one bundle.

        Raises:
            DssmError: `parse` raised it, or there is no single list.
            BusyError: too many lists, or items of batches, wait or are computed, or this one has lasted request_seconds.
        """
        self._check_room()
        clock, loop, seconds = StageClock(), asyncio.get_running_loop(), self.limits.request_seconds
        requests = check_requests(request.scope, await self._parse_alone(parse) if is_large else parse())
        clock.end("parse")
        self._check_room()  # others may have come meanwhile
        items = count_items(requests) if is_batch else 0
        if items and (total := sum(self._computing.values()) + items) > self._num_threads * MAX_ITEMS:
            raise _busy(f"at most {self._num_threads * MAX_ITEMS} items of batches at once", str(total))
        is_arrow = ARROW in request.headers.get("accept", "")
        call = _Call(requests, is_batch, is_arrow, time.monotonic() + seconds, clock.stages[0], loop.create_future())
        self._computing[call] = items
        if is_batch:
            self.threads.submit(self._answer_calls, loop, [call])
        else:
            self._waiting.append(call)
            self._call_soon(loop)
        try:
            reply = await asyncio.wait_for(call.reply, seconds)
        except TimeoutError as error:
            raise _busy(f"a list in {seconds:g} seconds", "none") from error
        request.scope[STAGES] = reply.stages
        for source, count in reply.sources.items():
            self.metrics.answers.labels(source).inc(count)
        return Response(reply.body, media_type=ARROW if is_arrow else JSON)

    async def _parse_alone(self, parse: Callable[[], Requests]) -> Requests:
        """Returns what `parse` returns, while no other large body is parsed, in a thread.

        The event loop waits for a thread that parses, so it then gets as much time for all else.

        Raises:
            InputError: `parse` raised it.
            BusyError: other bodies have been parsed for request_seconds.
        """
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                await self._parsing.acquire()
        except TimeoutError as error:
            raise _busy(f"time for the body in {self.limits.request_seconds:g} seconds", "none") from error
        start = time.monotonic()
        try:
            return await asyncio.to_thread(_parse_without_collecting, parse)
        finally:
            asyncio.get_running_loop().call_later(time.monotonic() - start, self._parsing.release)

    def _check_room(self) -> None:
        if not self.has_room:
            raise _busy(f"fewer than {self.limits.max_requests} requests at once", str(len(self._computing)))

    def _call_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls a thread, if one is idle, after what else is to do in this turn of the loop, which may bring further lists.

        While several clients send inputs, they wait for each other a moment: the features of 16 users are encoded in the time of one's.
        """
        gathers = self._encoded_together > 1 and self._waiting and self._waiting[0].has_inputs
        loop.call_later(GATHER_SECONDS if gathers else 0, self._call_thread, loop)

    def _call_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._idle:
            self._idle -= 1
            self.threads.submit(self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._answer_waiting(loop)
        finally:
            loop.call_soon_threadsafe(self._end_work, loop)

    def _end_work(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle += 1
        self._call_soon(loop)

    def _answer_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers single lists that wait, together, which costs less than one by one: a share of them, or those with inputs all at once."""
        calls, most = list[_Call](), -(-len(self._waiting) // (self._idle + 1))
        with suppress(IndexError):
            while len(calls) < (ANSWERED_TOGETHER if calls and calls[0].has_inputs else min(most, ANSWERED_TOGETHER)):
                calls.append(self._waiting.popleft())
        if calls and calls[0].has_inputs:
            self._encoded_together = len(calls)
        self._answer_calls(loop, calls)

    def _answer_calls(self, loop: asyncio.AbstractEventLoop, calls: Sequence[_Call]) -> None:
        """Answers calls, all from one bundle, at once; they share all stages but parsing and rendering."""
        wanted = [call for call in calls if not call.reply.done()]
        replies: list[Reply | Exception] = []
        try:
            if wanted:
                replies = self._compute(loop, self.live.engine, wanted)
        except Exception as error:
            replies = [error] * len(wanted)
        loop.call_soon_threadsafe(self._send, calls, dict(zip(wanted, replies, strict=True)))

    def _send(self, calls: Sequence[_Call], replies: Mapping[_Call, Reply | Exception]) -> None:
        for call in calls:
            del self._computing[call]
            if call.reply.done():  # Its client has given up.
                continue
            if isinstance(reply := replies[call], Exception):
                call.reply.set_exception(reply)
            else:
                call.reply.set_result(reply)

    def _compute(
        self, loop: asyncio.AbstractEventLoop, engine: RecallEngine, calls: Sequence[_Call]
    ) -> list[Reply | Exception]:
        """Returns the reply of each call. A batch answers single lists that wait first, a long one also in between."""
        clock, found = StageClock(), list[RecallAnswer | DssmError]()
        requests = [one for call in calls for one in call.requests if isinstance(one, UserRequest)]
        for part in split_by_cost(requests, len(engine.bundle.items)):
            if calls[0].is_batch and self._waiting:
                self._answer_waiting(loop)
            if time.monotonic() > max(call.ends_at for call in calls):
                raise _busy("time for the list", "none")
            found += engine.recall_for_users(part, lambda: clock.end("encode"))
            clock.end("search")
        lists, shared, replies = iter(found), tuple(clock.stages), list[Reply | Exception]()
        for call in calls:
            answers = [next(lists) if isinstance(one, UserRequest) else one for one in call.requests]
            # A batch has the errors of its requests beside lists, but for what no request can help.
            is_fatal = StorageError if call.is_batch else DssmError
            if (failed := next((one for one in answers if isinstance(one, is_fatal)), None)) is not None:
                replies.append(failed)
                continue
            reply = render(engine, answers, is_batch=call.is_batch, is_arrow=call.is_arrow)
            clock.end("render")
            replies.append(reply._replace(stages=(call.parsed, *shared, clock.stages[-1])))
        return replies

    @asynccontextmanager
    async def receive_body(self, request: Request) -> AsyncIterator[bytearray]:
        """Yields the body of a request; its bytes count until the request is answered.

        Raises:
            InputError: the query has a parameter.
            BodyTooLargeError: it has more than max_body_bytes.
            BusyError: it has not arrived in request_seconds, or other bodies take the memory.
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
                        raise _busy(f"at most {MAX_WAITING_BYTES} bytes of bodies at once", str(self._waiting_bytes))
            yield body
        except TimeoutError as error:
            raise _busy(f"a whole body in {self.limits.request_seconds:g} seconds", f"{len(body)} bytes") from error
        finally:
            self._waiting_bytes -= len(body)

    def refuse(self, request: Request, error: str, faults: Sequence[Fault], status: int) -> Response:
        """Returns the response with an error, and counts it."""
        path = request.url.path
        self.metrics.errors.labels(path if path in ROUTES else "other", error).inc()
        return JSONResponse(error_content(error, faults), status, RETRY_AFTER if status == BusyError.status else None)


async def refuse_parameters(request: Request) -> None:
    """Raises an InputError that names the parameters of a query, on a route that has none."""
    read_query(NoQuery, request.scope["query_string"])


def _parse_without_collecting(parse: Callable[[], Requests]) -> Requests:
    """Of a body of many lists, the collector would look at all objects of the process over and over."""
    gc.disable()
    try:
        return parse()
    finally:
        gc.enable()


def split_by_cost(requests: Sequence[UserRequest], item_count: int) -> Iterator[Sequence[UserRequest]]:
    """Yields requests that are computed at once, of all in their order; together they take about .1 s at most, unless it is one.

    A list costs its items, and the conditions of its filter: each is compared with every item of the bundle, unless the request before had
    the same filter.
    """
    start, items, compared, before = 0, 0, 0, ""
    for position, request in enumerate(requests):
        more_items, filters = count_items([request]), repr(request.options.filters)  # 1 and true are equal, their texts are not
        more_compared = 0 if filters == before else item_count * _count_conditions(request.options.filters)
        before = filters
        is_full = position - start >= COMPUTED_TOGETHER or items + more_items > ITEMS_TOGETHER
        if position > start and (is_full or compared + more_compared > COMPARED_TOGETHER):
            yield requests[start:position]
            start, items, compared = position, 0, 0
        items, compared = items + more_items, compared + more_compared
    if start < len(requests):
        yield requests[start:]


def _count_conditions(filters: Any) -> int:
    """Returns the number of conditions of a filter, 0 of one that will be refused."""
    try:
        return count_conditions(filters)
    except InputError:
        return 0


def _busy(expected: str, got: str) -> BusyError:
    return BusyError(Fault("service", expected, got, "try again later"))


def build_app(
    live: LiveEngine,
    limits: ServiceLimits | None = None,
    tracer: RequestTracer | None = None,
    *,
    threads: int = 2,
    keys: LiveKeys | None = None,
    log: Callable[[str], None] | None = None,
) -> FastAPI:
    """Returns the application over an engine.

    Args:
        limits: default: those of an empty configuration. keep_alive_seconds and shutdown_seconds are options of uvicorn.
        tracer: makes spans of requests; None: there are none.
        threads: that compute lists.
        keys: None: everybody may ask.
        log: takes a line of JSON for each answer; None: there is no log.
    """
    service = Service(live, limits or ServiceLimits(), threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.watches.start()
        yield
        live.watches.stop()
        await asyncio.sleep(0.1)  # Requests that shutdown_seconds has cancelled are answered meanwhile.
        service.threads.shutdown(wait=False, cancel_futures=True)  # Lists that are computed end.
        if tracer is not None:
            tracer.close()

    app = FastAPI(
        title="dssm-assets recall",
        version=importlib.metadata.version("dssm-assets"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        openapi_tags=[{"name": name.value, "description": text} for name, text in SECTIONS.items()],
        dependencies=[Depends(refuse_parameters)],  # of all routes but _ListRoute, which read their queries
    )
    app.add_middleware(RequestGate, metrics=service.metrics, tracer=tracer, keys=keys, log=log)
    app.include_router(_list_routes(service))
    _add_routes(app, service)
    _add_error_handlers(app, service)
    _add_docs(app)
    return app


class _ListRoute(APIRoute):
    """A route whose function reads the query or the body by itself; its signature tells /docs about them.

    FastAPI's reading of them takes as long as all other work of the event loop on a request.
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
        """Items for a stored user, merged from all channels, or of the vectors alone."""
        return await service.answer(request, partial(parse_query, RecallQuery, request.scope["query_string"]))

    @router.post("/recall", summary="Items for a user, by a body", **describe_lists(404, 413))
    async def recall_by_body(request: Request, _: Annotated[RecallRequest, Body(openapi_examples=RECALL_EXAMPLES)]) -> Response:
        """Items for a stored user, for one given by features and history, or for a stored user after further events."""
        async with service.receive_body(request) as body:
            return await service.answer(request, partial(parse_recall_body, body), is_large=len(body) > SMALL_BODY_BYTES)

    @router.post("/recall/batch", summary="Items for many users", **describe_lists(413, answer=BatchAnswer))
    async def recall_batch(request: Request, _: Annotated[BatchRequest, Body(openapi_examples=BATCH_EXAMPLES)]) -> Response:
        """Items for many users: `answers` has for each request, in their order, what POST /recall answers, or its error."""
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
