"""Traces, as a collector receives them."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.tracing import Tracing
from tests.factories import client_of


@pytest.fixture
def collector():
    """An address, and the spans that came there: name and attributes."""
    spans: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        spans.append((span.name, {one.key: one.value.string_value for one in span.attributes}))
            self.send_response(200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", spans
    server.shutdown()
    server.server_close()
    thread.join()


def test_requests_become_spans_by_route_and_probes_do_not(embedded_settings, collector):
    url, spans = collector

    with client_of(embedded_settings.model_copy(update={"otlp_endpoint": url})) as client:
        client.get("/livez")
        client.get("/v1/jobs/job_x")

    assert [name for name, _ in spans] == ["GET /v1/jobs/{job_id}"]


def test_an_attempt_is_a_span_with_its_jobs_and_its_requests_id(collector):
    url, spans = collector
    tracing = Tracing(url, "clusterserve-worker")

    with tracing.span("train attempt", job_id="job_x", request_id=None):
        pass
    tracing.close()

    assert spans == [("train attempt", {"job_id": "job_x"})]


def test_without_an_endpoint_nothing_is_loaded_or_sent():
    import subprocess
    import sys

    code = """
import sys
from app.settings import Settings
from app.tracing import Tracing
with Tracing("", "x").span("y", a=1): pass
assert not [name for name in sys.modules if name.startswith("opentelemetry")], "loaded"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
