"""The HTTP service: /recall, /similar, /health, /metrics.

Belongs here: routes, their parameters, errors as JSON, counting requests. Does not belong here: the lists
(`recall_engine.py`) and which bundle they come from (`live.py`).

A request reads the engine once, so its answer comes from one whole bundle. Searches run in a thread pool with one thread per
core to use; more threads would only wait for each other.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dssm_assets.core.config.section import Section
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.serving.id_rows import UnknownIdError
from dssm_assets.serving.live import LiveEngine
from dssm_assets.serving.metrics import CONTENT_TYPE, ServiceMetrics
from dssm_assets.serving.recall_engine import DEFAULT_K, Lists, RecallAnswer, RecallEngine, recall_for_request
from dssm_assets.serving.request_encoder import UserInputs

JSON: Final = "application/json"
ROUTES: Final = ("/recall", "/similar", "/health", "/metrics")
UnknownUser = Literal["popular", "404"]
ExcludedItems = Annotated[list[str] | None, Query()]

_log = logging.getLogger(__name__)


class RecallRequest(Section):
    """Body of POST /recall. The list comes from the features if there are any, otherwise from the stored vector of user_id."""

    user_id: int | str | None = None
    features: dict[str, Any] = Field(default_factory=dict, description="Input name of fg.json -> value.")
    history: dict[str, Any] = Field(default_factory=dict, description="Input name -> list, oldest item first.")
    k: int = DEFAULT_K
    exclude: list[int | str] = Field(default_factory=list, description="Items to leave out of the list.")
    unknown: UnknownUser = Field(default="popular", description="Response to an unknown user without features.")
    channels: Lists | None = Field(
        default=None, description="merged: of all channels (default if the bundle has them); vectors: of the vectors alone."
    )


class Service:
    """What the routes share: the live engine, the thread pool and the metrics."""

    def __init__(self, live: LiveEngine, threads: int) -> None:
        self.live = live
        self.metrics = ServiceMetrics(live)
        self._pool = ThreadPoolExecutor(threads, "recall", initializer=_one_thread_per_search)

    async def respond(self, search: Callable[[RecallEngine], RecallAnswer]) -> Response:
        """Runs a search on the current engine in the thread pool; returns its answer as JSON."""
        body = await asyncio.get_running_loop().run_in_executor(self._pool, self._run_search, search, self.live.engine)
        return Response(body, media_type=JSON)

    def _run_search(self, search: Callable[[RecallEngine], RecallAnswer], engine: RecallEngine) -> bytes:
        answer = search(engine)
        self.metrics.answers.labels(answer.source.value).inc()
        return json.dumps(answer.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()

    def health(self) -> dict[str, Any]:
        """Returns the bundle that serves, its age and its size."""
        bundle = self.live.engine.bundle
        day = dt.date.fromisoformat(bundle.ds)
        return {
            "status": "ok" if self.live.refused_bundle_id is None else "stale",
            "bundle_id": bundle.bundle_id,
            "name": bundle.name,
            "ds": bundle.ds,
            "age_days": (dt.datetime.now(dt.UTC).date() - day).days,
            "loaded_seconds_ago": round(time.time() - self.live.loaded_at, 3),
            "users": len(bundle.users),
            "items": len(bundle.items),
            "dims": bundle.dims,
            "refused_bundle_id": self.live.refused_bundle_id,
        }

    def close(self) -> None:
        """Ends the thread pool."""
        self._pool.shutdown(wait=True)


def build_app(live: LiveEngine, threads: int = 2) -> FastAPI:
    """Returns the application over a live engine; the engine watches for new bundles while the application runs.

    Args:
        live: the engine.
        threads: number of concurrent searches.
    """
    service = Service(live, threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.stop()
        service.close()

    app = FastAPI(title="dssm-assets recall", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(_CountRequests, metrics=service.metrics)
    app.add_exception_handler(RequestValidationError, _respond_invalid)
    app.add_exception_handler(DssmError, _respond_error)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/recall")
    async def recall(
        user_id: str,
        k: int = DEFAULT_K,
        exclude: ExcludedItems = None,
        unknown: UnknownUser = "popular",
        channels: Lists | None = None,
    ) -> Response:
        """Items for a stored user, merged from all channels, or of the vectors alone."""
        return await service.respond(
            lambda engine: recall_for_request(
                engine,
                user_id=user_id,
                k=k,
                exclude=exclude or (),
                is_popular_for_unknown=unknown == "popular",
                lists=channels,
            )
        )

    @app.post("/recall")
    async def recall_by_body(body: RecallRequest) -> Response:
        """Items for a user given by features, or for a stored user."""
        return await service.respond(
            lambda engine: recall_for_request(
                engine,
                user_id=body.user_id,
                inputs=UserInputs(body.features, body.history),
                k=body.k,
                exclude=body.exclude,
                is_popular_for_unknown=body.unknown == "popular",
                lists=body.channels,
            )
        )

    @app.get("/similar")
    async def similar(item_id: str, k: int = DEFAULT_K, exclude: ExcludedItems = None) -> Response:
        """The items that are most similar to an item."""
        return await service.respond(lambda engine: engine.similar_items(item_id, k, exclude or ()))

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


def fault_json(fault: Fault) -> dict[str, str]:
    """Returns a fault as its JSON object."""
    return {"where": fault.where, "expected": fault.expected, "got": fault.got, "remedy": fault.remedy}


async def _respond_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, InputError):
        _log.error("%s failed: %s", request.url.path, error)
        return _error_response(request, 500, type(error).__name__, [])
    status = 404 if isinstance(error, UnknownIdError) else 400
    return _error_response(request, status, type(error).__name__, map(fault_json, error.faults))


async def _respond_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(
            ".".join(map(str, item["loc"])),
            item["msg"],
            repr(item.get("input"))[:120],
            "see /docs for the parameters of each route",
        )
        for item in error.errors()
    ]
    return _error_response(request, 400, "InputError", map(fault_json, faults))


def _error_response(request: Request, status: int, error: str, faults: Iterable[Mapping[str, str]]) -> Response:
    service: Service = request.app.state.service
    service.metrics.errors.labels(request.url.path, error).inc()
    body = json.dumps({"error": error, "faults": list(faults)}, ensure_ascii=True)
    return Response(body, status, media_type=JSON)


class _CountRequests:
    """Counts requests and measures their time. Paths without a route share the label `other`, so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        start, status = time.perf_counter(), 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        except Exception as error:
            self._metrics.errors.labels(route, type(error).__name__).inc()
            raise
        finally:
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
            self._metrics.requests.labels(route, str(status)).inc()
