"""Makes OpenTelemetry spans after each answer: one span for the request, with a child span per stage.

The standard environment variables configure the exporter (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.service.http.telemetry import STAGES, Stage


class RequestTracer:
    """Makes spans of requests. Implements the service's `Tracer`."""

    def __init__(self, provider: Any) -> None:
        """`provider` is an `opentelemetry.trace.TracerProvider`."""
        self._provider = provider
        self._tracer = provider.get_tracer("dssm_assets.serving")

    def record(self, scope: Mapping[str, Any], route: str, status: int, start_ns: int, end_ns: int) -> None:
        from opentelemetry import propagate, trace

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {"http.request.method": scope["method"], "http.route": route, "http.response.status_code": status}
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            context=propagate.extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=start_ns,
        )
        if span.is_recording():
            if status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            inside = trace.set_span_in_context(span)
            stages: Iterable[Stage] = scope.get(STAGES, ())
            for stage in stages:
                child = self._tracer.start_span(stage.name, context=inside, start_time=stage.start_ns)
                child.end(stage.end_ns)
        span.end(end_ns)

    def close(self) -> None:
        """Exports the remaining spans. Gives up after 2 seconds."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(2.0)


def open_tracer() -> RequestTracer:
    """Returns a tracer that exports by OTLP over HTTP. ConfigError: the extra's packages are not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        remedy = "pip install 'dssm-assets[telemetry]', or set serving.traces to false"
        fault = Fault("serving.traces", "the libraries of OpenTelemetry", f"no module {error.name}", remedy)
        raise ConfigError(fault) from error
    provider = TracerProvider(shutdown_on_exit=False)  # `close` shuts it down
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return RequestTracer(provider)
