"""Prometheus metrics of the service, and the timed stages of a request for a tracer's spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from dssm_assets.service.engine.live import EngineState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ServiceMetrics(Collector):
    """The metrics of one application, in their own registry."""

    def __init__(self, read_state: Callable[[], EngineState]) -> None:
        self._read_state = read_state
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it would add an unneeded series per counter
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        self.requests = counter("dssm_requests_total", "Requests by route and status.", ("route", "status"))
        self.errors = counter("dssm_request_errors_total", "Refused or failed requests by route and error.", ("route", "error"))
        self.answers = counter("dssm_answers_total", "Lists by their source.", ("source",))
        stale = "1 while the file of API keys cannot be used: the former keys stay."
        self.keys_stale = Gauge("dssm_api_keys_stale", stale, registry=self.registry)
        self.seconds = Histogram(
            "dssm_request_seconds",
            "Time to the response by route.",
            ("route",),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        state = self._read_state()
        for name, description, count in (
            ("dssm_bundle_swaps", "New bundles that replaced the previous one.", state.swaps),
            ("dssm_bundle_refused", "New bundles that were broken, so that the previous one kept serving.", state.refusals),
            (
                "dssm_bundle_check_errors",
                "Times that the pointer to the bundle, or the users to be forgotten, could not be read.",
                state.check_errors,
            ),
            ("dssm_shop_list_errors", "Lists of the shop that could not be used: the former ones stayed.", state.list_errors),
        ):
            yield CounterMetricFamily(name, description, count)
        info = GaugeMetricFamily("dssm_bundle_info", "The serving bundle.", labels=("bundle_id", "ds", "name", "index"))
        info.add_metric((state.bundle_id, state.ds, state.name, state.index), 1.0)
        yield info
        yield GaugeMetricFamily("dssm_bundle_loaded_timestamp_seconds", "When the serving bundle was loaded.", state.loaded_at)
        yield GaugeMetricFamily("dssm_bundle_users", "Users with a stored vector.", state.users)
        yield GaugeMetricFamily("dssm_bundle_items", "Items in the index.", state.items)
        if state.shown is not None:
            for name, count in state.shown.counts.items():
                yield CounterMetricFamily(f"dssm_shown_{name}", "See `shown` of /health.", count)
            yield GaugeMetricFamily("dssm_shown_waiting_rows", "Rows of answers to be written.", state.shown.waiting_rows)


STAGES: Final = "dssm_assets.stages"
"""Key, in a request's scope, of the stages of its list."""


class Stage(NamedTuple):
    """A stage of a list (parse, encode, search or render) with its times in unix nanoseconds."""

    name: str
    start_ns: int
    end_ns: int


class StageClock:
    """Times the stages of a list, one after the other."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._start_ns = time.time_ns()

    def end(self, name: str) -> None:
        now = time.time_ns()
        self.stages.append(Stage(name, self._start_ns, now))
        self._start_ns = now


class Tracer(Protocol):
    """Makes the spans of requests."""

    def record(self, scope: Mapping[str, Any], route: str, status: int, start_ns: int, end_ns: int) -> None:
        """Makes the spans of an answered request, in the trace of its header `traceparent`. `route`: its path, or `other`."""

    def close(self) -> None:
        """Exports the remaining spans."""
