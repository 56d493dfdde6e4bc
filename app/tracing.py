"""Traces over OTLP, where an endpoint is set and the extra `otel` is installed; elsewhere nothing is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracing:
    """Spans of one process; without an endpoint it does nothing."""

    def __init__(self, endpoint: str, service: str) -> None:
        """`endpoint`: a collector's address, such as `http://collector:4318`; `service`: the name spans go under."""
        self._provider: TracerProvider | None = None
        if not endpoint:
            return
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = Provider(resource=Resource.create({"service.name": service}))
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))

    def watch(self, app: Any) -> None:
        """A span for every request to a FastAPI application, but not for probes."""
        if self._provider is not None:
            from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

            FastAPIInstrumentor.instrument_app(
                app,
                tracer_provider=self._provider,
                excluded_urls="livez,readyz,metrics",
                exclude_spans=["receive", "send"],
            )

    @contextmanager
    def span(self, name: str, **facts: Any) -> Iterator[None]:
        """A span around the block."""
        if self._provider is None:
            yield
            return
        attributes = {key: value for key, value in facts.items() if value is not None}
        with self._provider.get_tracer("clusterserve").start_as_current_span(name, attributes=attributes):
            yield

    def close(self) -> None:
        """Send what is still waiting."""
        if self._provider is not None:
            self._provider.shutdown()
