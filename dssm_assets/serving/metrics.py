"""The service's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from dssm_assets.serving.live import EngineState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ServiceMetrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, read_state: Callable[[], EngineState]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series per counter, which is not needed
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dssm_requests_total", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.errors = Counter(
            "dssm_request_errors_total",
            "Requests that were refused or failed, by route and error.",
            ("route", "error"),
            registry=self.registry,
        )
        self.answers = Counter("dssm_answers_total", "Lists by their source.", ("source",), registry=self.registry)
        self.seconds = Histogram(
            "dssm_request_seconds",
            "Time from request to response, by route.",
            ("route",),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_BundleCollector(read_state))

    def render(self) -> bytes:
        """Returns the page that Prometheus scrapes, in the text format 0.0.4."""
        return generate_latest(self.registry)


class _BundleCollector(Collector):
    """Reads the state of the engine at the time of the scrape."""

    def __init__(self, read_state: Callable[[], EngineState]) -> None:
        self._read_state = read_state

    def collect(self) -> Iterator[Metric]:
        state = self._read_state()
        yield CounterMetricFamily("dssm_bundle_swaps", "New bundles that replaced the previous one.", state.swaps)
        refused = "New bundles that were broken, so that the previous one kept serving."
        yield CounterMetricFamily("dssm_bundle_refused", refused, state.refusals)
        failed = "Times that the pointer to the bundle could not be read."
        yield CounterMetricFamily("dssm_bundle_check_errors", failed, state.check_errors)
        unusable = "Times that a list of the shop could not be used, so that the former ones stayed."
        yield CounterMetricFamily("dssm_shop_list_errors", unusable, state.list_errors)
        info = GaugeMetricFamily("dssm_bundle_info", "The serving bundle.", labels=("bundle_id", "ds", "name", "index"))
        info.add_metric((state.bundle_id, state.ds, state.name, state.index), 1.0)
        yield info
        yield GaugeMetricFamily("dssm_bundle_loaded_timestamp_seconds", "When the serving bundle was loaded.", state.loaded_at)
        yield GaugeMetricFamily("dssm_bundle_users", "Users with a stored vector.", state.users)
        yield GaugeMetricFamily("dssm_bundle_items", "Items in the index.", state.items)
