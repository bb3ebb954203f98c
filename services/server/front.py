"""The front: an asyncio gRPC server that checks, limits and stores. Imports neither torch, tenseal nor numpy."""

import asyncio
import contextlib
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from he_runtime.errors import WireError
from he_runtime.wire.message import FRESH_CIPHERTEXT, read_frame
from he_runtime.wire.sizes import input_ciphertext_body_bytes
from services._pb import inference_pb2 as messages
from services._pb import inference_pb2_grpc as service
from services.server.key_store import KeyStore
from services.server.limits import Limits
from services.server.model import ServedModel
from services.server.worker_handle import WorkerDiedError, WorkerHandle

SERVICE_NAME = "thex.v1.Inference"
FILE_CHUNK_BYTES = 1 << 20
log = structlog.get_logger()

_STATUS = {
    "unknown_key_set": grpc.StatusCode.NOT_FOUND,
    "keys_incomplete": grpc.StatusCode.FAILED_PRECONDITION,
    "wrong_program": grpc.StatusCode.FAILED_PRECONDITION,
    "too_many_key_sets": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "oversize": grpc.StatusCode.OUT_OF_RANGE,
}


@dataclass(frozen=True)
class Settings:
    """How to serve."""

    bundle_directory: Path
    address: str
    certificate: Path | None
    private_key: Path | None
    key_directory: Path | None = None
    threads: int = 2
    limits: Limits = field(default_factory=Limits)
    cache_directory: Path | None = None
    """Where encoded plaintexts are kept between starts; nowhere without it."""


class Front(service.InferenceServicer):  # type: ignore[misc]
    """The RPCs."""

    def __init__(self, model: ServedModel, store: KeyStore, worker: WorkerHandle) -> None:
        self.model = model
        self.store = store
        self.worker = worker

    async def GetClientBundle(  # noqa: N802
        self,
        request: Any,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[messages.FileChunk]:
        """Plan first, then the files of the public half."""
        yield messages.FileChunk(name="plan.json", data=self.model.plan_json.encode())
        for name, path in self.model.files.items():
            with path.open("rb") as file:
                while data := file.read(FILE_CHUNK_BYTES):
                    yield messages.FileChunk(name=name, data=data)

    async def OpenUpload(self, request: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Begin, or say how far an upload got."""
        async with _refusals(context, "OpenUpload"):
            self._check_program(request.program_digest)
            return self._state(request.key_set or self.store.create())

    async def UploadKeys(self, request_iterator: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Keys in chunks; once all are there the worker loads them, so that the first query is as fast as the next."""
        async with _refusals(context, "UploadKeys"):
            key_set = ""
            async for chunk in request_iterator:
                key_set = chunk.key_set
                self.store.append(key_set, chunk.galois_element, chunk.offset, chunk.data)
            if not key_set:
                raise WireError("empty_upload", "the upload held no key")
            ready = self.store.is_complete(key_set)
            if ready:
                try:
                    await self.worker.job("load", key_set, self.store.path(key_set))
                except WireError as error:
                    if error.reason != "busy":
                        self.store.delete(key_set)  # a key that does not load would fail every query
                    raise
            return self._state(key_set, ready=ready)

    async def Infer(self, request: Any, context: Any) -> AsyncIterator[messages.InferEvent]:  # noqa: N802
        """Progress events, then the result."""
        async with _refusals(context, "Infer"):
            self._check_program(request.program_digest)
            directory = self.store.path(request.key_set)
            if not self.store.is_complete(request.key_set):
                raise WireError("keys_incomplete", "the upload of the keys is not complete; resume it")
            inputs = self._checked_inputs(request)
            events: asyncio.Queue[messages.InferEvent | None] = asyncio.Queue()

            async def report(done: int, total: int) -> None:
                await events.put(messages.InferEvent(progress=messages.Progress(done=done, total=total)))

            async def compute() -> Any:
                try:
                    return await self.worker.job(
                        "infer", request.key_set, directory, request.bucket, inputs, on_progress=report
                    )
                finally:
                    await events.put(None)

            job = asyncio.ensure_future(compute())
            try:
                while (event := await events.get()) is not None:
                    yield event
                outputs, seconds = await job
            finally:
                job.cancel()  # the client went away: free the worker
            named = [messages.Ciphertext(name=name, data=data) for name, data in outputs.items()]
            yield messages.InferEvent(result=messages.InferResult(outputs=named, seconds=seconds))

    async def DeleteKeys(self, request: Any, context: Any) -> messages.DeleteKeysResponse:  # noqa: N802
        """Forget keys on disk and in memory."""
        async with _refusals(context, "DeleteKeys"):
            self.store.delete(request.key_set)
            await self.worker.job("forget", request.key_set)
            return messages.DeleteKeysResponse()

    def _state(self, key_set: str, *, ready: bool = False) -> messages.UploadState:
        complete = self.store.complete(key_set)
        return messages.UploadState(key_set=key_set, complete=complete, ready=ready)

    def _check_program(self, digest: str) -> None:
        if digest != self.model.binding.program_digest:
            raise WireError("wrong_program", "made for another model or program; fetch the server's plan again")

    def _checked_inputs(self, request: Any) -> dict[str, bytes]:
        """Input ciphertexts by name, their frames checked; the worker checks the residues."""
        wanted = self.model.inputs.get(request.bucket)
        if wanted is None:
            raise WireError(
                "wrong_bucket", f"bucket {request.bucket} is not served; buckets: {sorted(self.model.inputs)}"
            )
        inputs = {item.name: item.data for item in request.inputs}
        if inputs.keys() != wanted.keys() or len(request.inputs) != len(wanted):
            raise WireError("wrong_inputs", f"the program takes {sorted(wanted)}, each once")
        for name, level in wanted.items():
            size = input_ciphertext_body_bytes(self.model.binding.parameters, level)
            frame = read_frame(inputs[name], self.model.binding, FRESH_CIPHERTEXT, size)
            if frame.level != level:
                raise WireError("wrong_level", f"{name} is at level {frame.level}; the program wants level {level}")
        return inputs


@contextlib.asynccontextmanager
async def _refusals(context: Any, method: str) -> AsyncIterator[None]:
    """Refusals become statuses whose details begin with a stable reason; anything unforeseen carries a request id only."""
    request_id = secrets.token_hex(8)
    try:
        yield
        log.info("rpc", method=method, request_id=request_id, code="OK")
    except WireError as error:
        code = _STATUS.get(error.reason, grpc.StatusCode.INVALID_ARGUMENT)
        log.info("rpc", method=method, request_id=request_id, code=code.name, reason=error.reason)
        await context.abort(code, f"{error.reason}: {error}")
    except TimeoutError:
        log.warning("rpc", method=method, request_id=request_id, code="DEADLINE_EXCEEDED")
        await context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED, "too_slow: the request took longer than the server allows"
        )
    except WorkerDiedError:
        log.error("rpc", method=method, request_id=request_id, code="UNAVAILABLE")
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"worker_restarted: try again (request {request_id})")
    except OSError as error:
        log.error("rpc", method=method, request_id=request_id, code="INTERNAL", error=type(error).__name__)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal: request {request_id}")


async def serve(settings: Settings, *, on_ready: Any = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    limits = settings.limits
    cache = None if settings.cache_directory is None else str(settings.cache_directory)
    worker = WorkerHandle(str(settings.bundle_directory), settings.threads, limits, cache)
    with tempfile.TemporaryDirectory(prefix="thex-keys-") as temporary:
        model = await worker.start()
        store = KeyStore(settings.key_directory or Path(temporary) / "keys", model, limits)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", limits.message_bytes),
            ],
            maximum_concurrent_rpcs=limits.concurrent_calls,
        )
        service.add_InferenceServicer_to_server(Front(model, store, worker), server)
        health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if settings.certificate is None or settings.private_key is None:
            port = server.add_insecure_port(settings.address)
        else:
            pair = (settings.private_key.read_bytes(), settings.certificate.read_bytes())
            port = server.add_secure_port(settings.address, grpc.ssl_server_credentials([pair]))
        await server.start()
        for name in ("", SERVICE_NAME):
            await health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", address=settings.address, port=port, limits=repr(limits))
        if on_ready is not None:
            on_ready(port)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        for name in ("", SERVICE_NAME):
            await health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.stop(grace=10)
        worker.stop()
