"""The service's Prometheus metrics.

Belongs here: their names, labels and buckets. Does not belong here: counting (`http.py`, `live.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from dssm_assets.serving.live import LiveEngine

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class BundleCounters:
    """Counts of a live engine's attempts to load a newer bundle."""

    def __init__(self) -> None:
        self.swaps = Counter("dssm_bundle_swaps_total", "New bundles that replaced the previous one.", registry=None)
        self.refusals = Counter(
            "dssm_bundle_refused_total", "New bundles that were broken, so that the previous one kept serving.", registry=None
        )
        self.list_errors = Counter(
            "dssm_shop_list_errors_total",
            "Times that a list of the shop could not be used, so that the former ones stayed.",
            registry=None,
        )
        self.check_errors = Counter(
            "dssm_bundle_check_errors_total", "Times that the pointer to the bundle could not be read.", registry=None
        )


class ServiceMetrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, live: LiveEngine) -> None:
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
        self.closed_connections = Counter(
            "dssm_connections_closed_total",
            "Connections that were closed because of a limit or a malformed request, by reason.",
            ("reason",),
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
        for counter in (
            live.counters.swaps,
            live.counters.refusals,
            live.counters.check_errors,
            live.counters.list_errors,
        ):
            self.registry.register(counter)
        self.registry.register(_BundleCollector(live))

    def render(self) -> bytes:
        """Returns the page that Prometheus scrapes, in the text format 0.0.4."""
        return generate_latest(self.registry)


class _BundleCollector(Collector):
    """Reads the gauges from the bundle that serves at the time of the scrape."""

    def __init__(self, live: LiveEngine) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        bundle, loaded_at = self._live.engine.bundle, self._live.loaded_at
        index = str((bundle.manifest.get("index") or {}).get("kind", "unknown"))
        info = GaugeMetricFamily("dssm_bundle_info", "The serving bundle.", labels=("bundle_id", "ds", "name", "index"))
        info.add_metric((bundle.bundle_id, bundle.ds, bundle.name, index), 1.0)
        yield info
        yield GaugeMetricFamily("dssm_bundle_loaded_timestamp_seconds", "When the serving bundle was loaded.", loaded_at)
        yield GaugeMetricFamily("dssm_bundle_users", "Users with a stored vector.", len(bundle.users))
        yield GaugeMetricFamily("dssm_bundle_items", "Items in the index.", len(bundle.items))
