"""Spans of requests, by OTLP over HTTP."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.traces.tracer import open_tracer
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.servers import Client, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def root(tmp_path: Path) -> str:
    bundles.write_bundle(tmp_path)
    return str(tmp_path)


def test_spans_arrive_at_a_receiver_over_http(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="extra telemetry")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            received.append((f"{self.path} {self.headers['Content-Type']}", body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-recall")
        tracer = open_tracer()
        with serving(LiveEngine(root), tracer=tracer) as port, closing(Client(port)) as client:
            header = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert client.send("GET", "/recall?user_id=1&k=0")[0] == 400
            assert client.send("GET", "/recall?user_id=1&k=3", headers=header)[0] == 200
        tracer.close()
        receiver.shutdown()
    ((where, body),) = received
    assert where == "/v1/traces application/x-protobuf"
    (of_service,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert "shop-recall" in [one.value.string_value for one in of_service.resource.attributes if one.key == "service.name"]
    refused, *answered = of_service.scope_spans[0].spans
    assert [span.name for span in (refused, *answered)] == ["GET /recall", "parse", "encode", "search", "render", "GET /recall"]
    spans = {span.name: span for span in answered}
    attributes = [{one.key: one.value for one in span.attributes} for span in (refused, answered[-1])]
    assert [one["http.response.status_code"].int_value for one in attributes] == [400, 200]
    times = [time for span in answered[:-1] for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    times = [answered[-1].start_time_unix_nano, *times, answered[-1].end_time_unix_nano]
    assert times == sorted(times)
    assert (spans["GET /recall"].trace_id.hex(), spans["GET /recall"].parent_span_id.hex()) == (TRACE, PARENT)
    assert spans["search"].parent_span_id == spans["GET /recall"].span_id


def test_a_silent_receiver_is_left_after_two_seconds(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="extra telemetry")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = open_tracer()
        with serving(LiveEngine(root), tracer=tracer) as port, closing(Client(port)) as client:
            assert client.send("GET", "/recall?user_id=1&k=3")[0] == 200
            start = time.monotonic()
        assert time.monotonic() - start < 6, "not the 10 seconds of an export"


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"serving\.traces.*pip install 'dssm-assets\[telemetry\]'"):
        open_tracer()
