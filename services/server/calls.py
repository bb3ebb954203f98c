"""One call from its arrival to its one canonical log line: who, what, how big, how long, how it ended.

The line holds names that mean nothing elsewhere (hashes of client and key set), sizes, times, a status and a reason; never a
payload, a token, a text of an exception, or anything derived from a plaintext.
"""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from he_runtime.errors import WireError
from services.server.identity import Authenticator, Principal
from services.server.metrics import Metrics
from services.server.refusals import Refusal
from services.server.traces import Tracer
from services.server.worker_handle import WorkerDiedError

log = structlog.get_logger()


@dataclass
class Call:
    """What is known of a call so far."""

    method: str
    request_id: str
    principal: Principal
    key_set: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    retry_seconds: float | None = None
    """When to try again, should the call be refused for want of room."""


def hashed(name: str) -> str:
    """12 hexadecimal digits that stand for a name in the log."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Desk:
    """Receives calls: finds out who calls, and sees each to its end."""

    authenticator: Authenticator
    metrics: Metrics
    tracer: Tracer

    @contextlib.asynccontextmanager
    async def call(self, context: Any, method: str) -> AsyncIterator[Call]:
        """A call that is counted, timed and logged once however it ends; refusals become statuses with details.

        The block is entered with a caller that is known, and has the request yet to read.
        """
        started = time.monotonic()
        call = Call(method, secrets.token_hex(8), Principal(""))
        refusal: Refusal | None = None
        code = "OK"
        self.metrics.active.labels(method).inc()
        try:
            with self.tracer.span(method, call):
                try:
                    call.principal = self.authenticator.principal(
                        tuple(context.invocation_metadata() or ()), context.auth_context()
                    )
                    yield call
                except WireError as error:
                    refusal = Refusal(error.reason, str(error), call.request_id, call.retry_seconds)
                except TimeoutError:
                    refusal = Refusal("too_slow", "the request took longer than the server allows", call.request_id)
                except WorkerDiedError:
                    refusal = Refusal("worker_restarted", "the request was lost; make a new one", call.request_id)
                except Exception as error:
                    refusal = Refusal("internal", f"request {call.request_id}", call.request_id)
                    log.error("unforeseen", request_id=call.request_id, kind=type(error).__name__)
            if refusal is not None:
                code = refusal.code.name
                await context.abort(refusal.code, refusal.text, (refusal.trailer(),))
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            self._finish(call, code, refusal, time.monotonic() - started)

    def _finish(self, call: Call, code: str, refusal: Refusal | None, seconds: float) -> None:
        metrics, method = self.metrics, call.method
        metrics.active.labels(method).dec()
        metrics.calls.labels(method, code).observe(seconds)
        metrics.received.labels(method).inc(call.bytes_in)
        metrics.sent.labels(method).inc(call.bytes_out)
        for stage, duration in call.stages.items():
            metrics.stages.labels(stage).observe(duration)
        line = {
            "request_id": call.request_id,
            "method": method,
            "client": call.principal.tenant[:12],
            "key_set": hashed(call.key_set) if call.key_set else "",
            "bytes_in": call.bytes_in,
            "bytes_out": call.bytes_out,
            "seconds": round(seconds, 6),
            "stages": {stage: round(duration, 6) for stage, duration in call.stages.items()},
            "code": code,
        }
        if refusal is not None:
            metrics.refused.labels(refusal.reason).inc()
            line["reason"] = refusal.reason
        log.info("rpc", **line)
