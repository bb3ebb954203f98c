"""OpenTelemetry spans, when the operator wants them: one for each call, with its stages as events. Needs the extra `traces`."""

import contextlib
from collections.abc import Iterator
from typing import Any


class Tracer:
    """Makes spans; without a provider it does nothing and needs no package."""

    def __init__(self, provider: Any = None) -> None:
        self._tracer = None if provider is None else provider.get_tracer("thex")

    @classmethod
    def from_environment(cls) -> "Tracer":
        """Exports by OTLP as the OTEL_EXPORTER_OTLP_ variables say. ImportError without the extra `traces`."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @contextlib.contextmanager
    def span(self, method: str, call: Any) -> Iterator[None]:
        """One span around a call; its attributes are those of the log line, written when the block ends."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(f"thex.v1.Inference/{method}") as span:
            try:
                yield
            finally:
                span.set_attribute("thex.request_id", call.request_id)
                span.set_attribute("thex.bytes_in", call.bytes_in)
                span.set_attribute("thex.bytes_out", call.bytes_out)
                for stage, seconds in call.stages.items():
                    span.add_event(stage, {"seconds": seconds})
