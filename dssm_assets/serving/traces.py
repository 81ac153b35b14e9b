"""OpenTelemetry spans of requests: one per request, and in it the stages of its list as the engine has timed them.

The SDK and its exporter are an extra; the standard environment configures them (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, ...). Spans are made after the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from dssm_assets.core.errors import ConfigError, Fault

STAGES: Final = "dssm_assets.stages"
"""Key of a request's scope with the stages of its list."""


class Stage(NamedTuple):
    """A part of the time that a list took, in unix nanoseconds: parse, encode, search or render."""

    name: str
    start_ns: int
    end_ns: int


class StageClock:
    """Times the stages of a list, one after the other."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._start_ns = time.time_ns()

    def end(self, name: str) -> None:
        """Ends a stage; the next one begins."""
        now = time.time_ns()
        self.stages.append(Stage(name, self._start_ns, now))
        self._start_ns = now


class RequestTracer:
    """Makes the spans of requests."""

    def __init__(self, provider: Any) -> None:
        """Takes the provider of the tracer, `opentelemetry.trace.TracerProvider`."""
        self._provider = provider
        self._tracer = provider.get_tracer("dssm_assets.serving")

    def record(self, scope: Mapping[str, Any], route: str, status: int, start_ns: int, end_ns: int) -> None:
        """Makes the spans of an answered request; it is part of the trace that its header `traceparent` names.

        Args:
            route: its path, or `other`.
            start_ns: when it arrived, unix nanoseconds.
        """
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
        self._provider.shutdown()


def open_tracer(processors: Sequence[Any] | None = None) -> RequestTracer:
    """Returns a tracer that exports by OTLP over HTTP, or to the given span processors.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        remedy = "pip install 'dssm-assets[telemetry]', or set serving.traces to false"
        raise ConfigError(
            Fault("serving.traces", "the libraries of OpenTelemetry", f"no module {error.name}", remedy)
        ) from error
    provider = TracerProvider()
    for processor in [BatchSpanProcessor(OTLPSpanExporter())] if processors is None else processors:
        provider.add_span_processor(processor)
    return RequestTracer(provider)
