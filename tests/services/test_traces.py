"""Spans carry what the log line does, for every end that a call can have."""

import asyncio
from typing import Any

import grpc
import pytest

from he_runtime.errors import WireError
from services.server.calls import Desk
from services.server.identity import Authenticator, TokenFile
from services.server.metrics import Metrics
from services.server.traces import Tracer

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="install the extra `traces`")
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402


class AbortedError(Exception):
    pass


class Context:
    """What gRPC gives a call."""

    def __init__(self) -> None:
        self.status: tuple[Any, ...] | None = None

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def auth_context(self) -> dict[str, Any]:
        return {}

    async def abort(self, *status: Any) -> None:
        self.status = status
        raise AbortedError


def test_every_end_of_a_call_is_one_span_one_count_and_one_status(tmp_path) -> None:
    exporter, provider, metrics = InMemorySpanExporter(), sdk.TracerProvider(), Metrics()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    desk = Desk(Authenticator("none", TokenFile(tmp_path / "none")), metrics, Tracer(provider))
    ends = {
        "OK": None,
        "NOT_FOUND": WireError("unknown_key_set", "no"),
        "DEADLINE_EXCEEDED": TimeoutError(),
        "INTERNAL": ZeroDivisionError("a client's number: 0.123"),
        "CANCELLED": asyncio.CancelledError(),
    }

    async def call(end: BaseException | None, context: Context) -> None:
        async with desk.call(context, "Infer") as call:
            call.bytes_in = 7
            call.stages["compute"] = 0.5
            if end is not None:
                raise end

    for code, end in ends.items():
        context = Context()
        try:
            asyncio.run(call(end, context))
        except (AbortedError, asyncio.CancelledError):
            assert code != "OK"
        assert (
            metrics.registry.get_sample_value("thex_rpc_duration_seconds_count", {"method": "Infer", "code": code}) == 1
        )
        if context.status is not None:
            assert context.status[0] == getattr(grpc.StatusCode, code)
            assert "0.123" not in context.status[1]
    spans = exporter.get_finished_spans()
    assert len(spans) == len(ends)
    for span in spans:
        assert span.name == "thex.v1.Inference/Infer"
        assert span.attributes["thex.bytes_in"] == 7
        assert [event.name for event in span.events if event.name == "compute"]
        assert "0.123" not in str(span.to_json())
