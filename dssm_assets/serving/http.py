"""The HTTP service: /recall, /similar, /health, /metrics.

Belongs here: routes, their parameters, errors as JSON, counting requests. Does not belong here: answers (`engine.py`) and
which bundle gives them (`live.py`).

Each request takes the engine once, so its answer comes from one whole bundle. The search runs in a pool of threads of
its own, as many as there are cores to use: more would only queue inside the machine.
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
from dssm_assets.serving.metrics import CONTENT_TYPE, Counter, Gauge, Histogram, text_of
from dssm_assets.serving.recall_engine import DEFAULT_K, Answer, Engine, for_request
from dssm_assets.serving.requests import Given

JSON: Final = "application/json"
ROUTES: Final = ("/recall", "/similar", "/health", "/metrics")
Unknown = Literal["popular", "404"]
Excluded = Annotated[list[str] | None, Query()]

_log = logging.getLogger(__name__)


class RecallRequest(Section):
    """Body of POST /recall. Features, where given, decide; else the stored vector of user_id does."""

    user_id: int | str | None = None
    features: dict[str, Any] = Field(default_factory=dict, description="Value by input name of fg.json.")
    history: dict[str, Any] = Field(default_factory=dict, description="Lists by input name, the oldest first.")
    k: int = DEFAULT_K
    exclude: list[int | str] = Field(default_factory=list, description="Items that must not be in the list.")
    unknown: Unknown = Field(default="popular", description="What an unknown user without features gets.")


class Service:
    """What the routes share: the live engine, the threads and the counters."""

    def __init__(self, live: LiveEngine, threads: int) -> None:
        self.live = live
        self._pool = ThreadPoolExecutor(threads, "recall", initializer=_one_thread_per_search)
        self.requests = Counter("dssm_requests_total", "Requests by route and status.", ("route", "status"))
        self.errors = Counter("dssm_request_errors_total", "Requests that were refused or failed.", ("route", "error"))
        self.answers = Counter("dssm_answers_total", "Lists by where they come from.", ("source",))
        self.seconds = Histogram("dssm_request_seconds", "Time from request to answer, by route.", ("route",))

    async def answer(self, work: Callable[[Engine], Answer]) -> Response:
        """Runs a question to the engine of now in a thread and returns its answer."""
        body = await asyncio.get_running_loop().run_in_executor(self._pool, self._answered, work, self.live.engine)
        return Response(body, media_type=JSON)

    def _answered(self, work: Callable[[Engine], Answer], engine: Engine) -> bytes:
        answer = work(engine)
        self.answers.add(answer.source.value)
        return json.dumps(answer.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()

    def health(self) -> dict[str, Any]:
        """Returns which bundle serves, how old it is and what it holds."""
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

    def metrics(self) -> str:
        """Returns the page for Prometheus."""
        live = self.live
        bundle = live.engine.bundle
        info = {"bundle_id": bundle.bundle_id, "ds": bundle.ds, "name": bundle.name}
        index = str((bundle.manifest.get("index") or {}).get("kind", "unknown"))
        loaded_at = live.loaded_at
        gauges = (
            Gauge("dssm_bundle_info", "The bundle that serves.", lambda: [({**info, "index": index}, 1.0)]),
            Gauge("dssm_bundle_loaded_timestamp_seconds", "When it took over.", lambda: loaded_at),
            Gauge("dssm_bundle_users", "Users with a stored vector.", lambda: len(bundle.users)),
            Gauge("dssm_bundle_items", "Items in the index.", lambda: len(bundle.items)),
        )
        counters = (self.requests, self.errors, self.answers, live.swaps, live.refusals, live.check_errors)
        return text_of([*counters, self.seconds, *gauges])

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True)


def build_app(live: LiveEngine, threads: int = 2) -> FastAPI:
    """Returns the application over a live engine, whose watch runs while the application does.

    Args:
        live: the engine.
        threads: searches at once.
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
    app.add_middleware(_Counting, service=service)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DssmError, _refused)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/recall")
    async def recall(user_id: str, k: int = DEFAULT_K, exclude: Excluded = None, unknown: Unknown = "popular") -> Response:
        """The list of a stored user."""
        return await service.answer(
            lambda engine: for_request(
                engine, user_id=user_id, k=k, exclude=exclude or (), is_popular_for_unknown=unknown == "popular"
            )
        )

    @app.post("/recall")
    async def recall_with(body: RecallRequest) -> Response:
        """The list of a user by features, or of a stored user."""
        return await service.answer(
            lambda engine: for_request(
                engine,
                user_id=body.user_id,
                given=Given(body.features, body.history),
                k=body.k,
                exclude=body.exclude,
                is_popular_for_unknown=body.unknown == "popular",
            )
        )

    @app.get("/similar")
    async def similar(item_id: str, k: int = DEFAULT_K, exclude: Excluded = None) -> Response:
        """The items that are nearest to an item."""
        return await service.answer(lambda engine: engine.similar(item_id, k, exclude or ()))

    @app.get("/health")
    async def health() -> Response:
        """The bundle that serves, its age, what it holds."""
        return Response(json.dumps(service.health()), media_type=JSON)

    @app.get("/metrics")
    async def metrics() -> Response:
        """The counters."""
        return Response(service.metrics(), media_type=CONTENT_TYPE)


def _one_thread_per_search() -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # One request is one search: the pool is what uses the cores.


def fault_json(fault: Fault) -> dict[str, str]:
    """Returns a fault as JSON has it."""
    return {"where": fault.where, "expected": fault.expected, "got": fault.got, "remedy": fault.remedy}


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, InputError):
        _log.error("%s failed: %s", request.url.path, error)
        return _error_response(request, 500, type(error).__name__, [])
    status = 404 if isinstance(error, UnknownIdError) else 400
    return _error_response(request, status, type(error).__name__, map(fault_json, error.faults))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(".".join(map(str, item["loc"])), item["msg"], repr(item.get("input"))[:120], "see /docs for what a request holds")
        for item in error.errors()
    ]
    return _error_response(request, 400, "InputError", map(fault_json, faults))


def _error_response(request: Request, status: int, error: str, faults: Iterable[Mapping[str, str]]) -> Response:
    service: Service = request.app.state.service
    service.errors.add(request.url.path, error)
    body = json.dumps({"error": error, "faults": list(faults)}, ensure_ascii=True)
    return Response(body, status, media_type=JSON)


class _Counting:
    """Counts requests and their time. What is no route is counted as one, so that labels stay few."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        started, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception as error:
            self._service.errors.add(route, type(error).__name__)
            raise
        finally:
            self._service.seconds.observe(time.perf_counter() - started, route)
            self._service.requests.add(route, str(status))
