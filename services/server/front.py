"""The RPCs: each reads its request, checks, stores or hands to a worker. Imports neither torch, tenseal, numpy nor numba.

What touches the disk runs on one thread of its own and what computes runs in workers, so the event loop is always free to answer
health checks and to notice that a client went away.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from he_runtime.errors import WireError
from he_runtime.wire.ciphertext_frames import check_fresh_frame
from services._pb import inference_pb2 as messages
from services._pb import inference_pb2_grpc as service
from services.server.calls import Call, Desk
from services.server.handlers import next_request, one_request
from services.server.identity import ANONYMOUS
from services.server.key_store import KeyStore
from services.server.limits import Limits
from services.server.metrics import Metrics
from services.server.model import ServedModel
from services.server.worker_pool import Counters, Job, WorkerPool

FILE_CHUNK_BYTES = 1 << 20
DEATHS_OF_A_KEY_SET = 3
KILLED = "signal-9"
"""A cause that no input has: memory is bounded by the address space, time by SIGXCPU."""
Answer = TypeVar("Answer")


@dataclass
class Front(service.InferenceServicer):  # type: ignore[misc]
    """The service."""

    model: ServedModel
    store: KeyStore
    pool: WorkerPool
    desk: Desk
    limits: Limits
    draining: bool = False
    """Whether new work is refused."""
    uploads: Counters = field(default_factory=Counters)
    requests: Counters = field(default_factory=Counters)
    _deaths: Counter[str] = field(default_factory=Counter)
    _disk: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="key-store"))

    @property
    def metrics(self) -> Metrics:
        """Where everything is counted."""
        return self.desk.metrics

    # --- the model -------------------------------------------------------------------------------------------------

    async def GetClientBundle(self, requests: Any, context: Any) -> AsyncIterator[messages.FileChunk]:  # noqa: N802
        """Plan first, then the files of the public half."""
        async with self.desk.call(context, "GetClientBundle") as call:
            await self._request(requests)
            async for chunk in self._bundle():
                call.bytes_out += len(chunk.data)
                yield chunk

    async def _bundle(self) -> AsyncIterator[messages.FileChunk]:
        yield messages.FileChunk(name="plan.json", data=self.model.plan_json.encode())
        for name, content in self.model.files.items():
            for start in range(0, len(content), FILE_CHUNK_BYTES):
                yield messages.FileChunk(name=name, data=content[start : start + FILE_CHUNK_BYTES])

    # --- keys ------------------------------------------------------------------------------------------------------

    async def OpenUpload(self, requests: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Begin, or say how far an upload got."""
        async with self.desk.call(context, "OpenUpload") as call:
            request = await self._request(requests)
            self._take_work()
            self._check_program(request.program_digest)
            call.key_set = request.key_set or await self.on_disk(self.store.create, call.principal.tenant)
            return await self._state(call, partial=True)

    async def UploadKeys(self, requests: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Keys in chunks; once all are there a worker loads them, so that the first query is as fast as the next."""
        async with self.desk.call(context, "UploadKeys") as call:
            self._take_work()
            tenant = call.principal.tenant
            with self.uploads.one(tenant, self.limits.uploads_per_client, self.limits.uploads):
                async with asyncio.timeout(self.limits.upload_seconds):
                    async for chunk in self._chunks(requests):
                        if call.key_set and chunk.key_set != call.key_set:
                            raise WireError("unknown_key_set", "one upload call is for one key set")
                        call.key_set = chunk.key_set
                        call.bytes_in += len(chunk.data)
                        await self.on_disk(
                            self.store.append, call.key_set, tenant, chunk.galois_element, chunk.offset, chunk.data
                        )
                if not call.key_set:
                    raise WireError("empty_upload", "the upload held no key")
                ready = await self.on_disk(self.store.is_complete, call.key_set, tenant)
                if ready:
                    await self._load(call)
                return await self._state(call, ready=ready)

    async def _chunks(self, requests: Any) -> AsyncIterator[Any]:
        """Chunks, none larger than allowed, none later than allowed."""
        iterator = aiter(requests)
        while True:
            try:
                chunk = await next_request(iterator, self.limits.idle_seconds, "resume the upload")
            except StopAsyncIteration:
                return
            if len(chunk.data) > self.limits.chunk_bytes:
                raise WireError("oversize", f"a chunk has at most {self.limits.chunk_bytes} bytes")
            yield chunk

    async def _load(self, call: Call) -> None:
        """Have a worker read the keys. Keys that a worker refuses would fail every query, so they go."""
        try:
            async with self._files(call) as files:
                await self._run(call, "load", (call.key_set, files), "")
        except WireError as error:
            if error.reason not in ("busy", "too_many", "unknown_key_set"):
                with contextlib.suppress(WireError):
                    await self.on_disk(self.store.delete, call.key_set, call.principal.tenant)
            raise

    async def DeleteKeys(self, requests: Any, context: Any) -> messages.DeleteKeysResponse:  # noqa: N802
        """Forget keys on disk and in memory."""
        async with self.desk.call(context, "DeleteKeys") as call:
            request = await self._request(requests)
            tenant = call.principal.tenant
            if request.key_set:
                call.key_set = request.key_set
                await self.on_disk(self.store.delete, request.key_set, tenant)
                names = [request.key_set]
            elif call.principal == ANONYMOUS:
                raise WireError("unknown_key_set", "callers are anonymous here: name the key set")
            else:
                names = await self.on_disk(self.store.delete_all, tenant)
            for name in names:
                await self.pool.forget(name)
            return messages.DeleteKeysResponse()

    # --- queries ---------------------------------------------------------------------------------------------------

    async def SelfTest(self, requests: Any, context: Any) -> messages.SelfTestResponse:  # noqa: N802
        """Every key once, on a vector that only the client knows."""
        async with self.desk.call(context, "SelfTest") as call:
            request = await self._request(requests)
            self._take_work()
            self._check_program(request.program_digest)
            call.key_set, call.bytes_in = request.key_set, len(request.input)
            with self.requests.one(call.principal.tenant, self.limits.requests_per_client):
                async with self._whole_files(call) as files:
                    check_fresh_frame(request.input, self.model.binding, max(self.model.keys.values()))
                    arguments = (call.key_set, files, request.input)
                    rotations, square = await self._run(call, "self_test", arguments, _digest([request.input]))
            call.bytes_out = len(rotations) + len(square)
            return messages.SelfTestResponse(rotations=rotations, square=square)

    async def Infer(self, requests: Any, context: Any) -> AsyncIterator[messages.InferEvent]:  # noqa: N802
        """Progress events, then the result."""
        async with self.desk.call(context, "Infer") as call:
            request = await self._request(requests)
            self._take_work()
            self._check_program(request.program_digest)
            call.key_set, call.bytes_in = request.key_set, sum(len(item.data) for item in request.inputs)
            with self.requests.one(call.principal.tenant, self.limits.requests_per_client):
                async with self._whole_files(call) as files:
                    inputs = self._checked_inputs(request)
                    arguments = (call.key_set, files, request.bucket, inputs)
                    async with contextlib.aclosing(self._events(call, arguments, _digest(inputs.values()))) as events:
                        async for event in events:
                            yield event

    async def _events(
        self, call: Call, arguments: tuple[Any, ...], digest: str
    ) -> AsyncGenerator[messages.InferEvent, None]:
        events: asyncio.Queue[messages.InferEvent | None] = asyncio.Queue()

        async def report(done: int, total: int) -> None:
            await events.put(messages.InferEvent(progress=messages.Progress(done=done, total=total)))

        async def compute() -> Any:
            try:
                return await self._run(call, "infer", arguments, digest, on_progress=report)
            finally:
                await events.put(None)

        job = asyncio.ensure_future(compute())
        try:
            while (event := await events.get()) is not None:
                yield event
            outputs, stages = await job
        finally:
            job.cancel()  # the client went away: free the worker
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await job  # what it ended with was raised above, unless nobody is there to be told
        call.stages.update(stages)
        named = [messages.Ciphertext(name=name, data=data) for name, data in outputs.items()]
        call.bytes_out = sum(len(item.data) for item in named)
        yield messages.InferEvent(result=messages.InferResult(outputs=named, seconds=stages["compute"]))

    # --- what they share -------------------------------------------------------------------------------------------

    async def _request(self, requests: Any) -> Any:
        return await one_request(requests, self.limits.receive_seconds)

    async def on_disk(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run something of the store on the store's thread. It is finished even when the caller goes away."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments))

    def blame(self, job: Job, cause: str) -> None:
        """A worker ended while it had this job: its input is not tried again, nor are keys with which too many crashed.

        A worker that was merely unlucky (killed by hand, or by the kernel for memory) costs an honest client nothing: it
        encrypts anew, and its keys are not blamed.
        """
        self.metrics.quarantined.inc()
        if cause != KILLED:
            self._deaths[job.key_set] += 1
        guilty = [job.digest] if job.digest else []
        if self._deaths[job.key_set] >= DEATHS_OF_A_KEY_SET:
            guilty.append(job.key_set)
        for digest in guilty:
            self._disk.submit(self.store.index.quarantine, digest, self.store.now)

    async def _run(self, call: Call, name: str, arguments: tuple[Any, ...], digest: str, **options: Any) -> Any:
        """One job, unless its input is known to end workers."""
        for suspect, what in ((digest, "input"), (call.key_set, "key set")):
            known: bool = bool(suspect) and await self.on_disk(self.store.index.is_quarantined, suspect)
            if known:
                raise WireError("quarantined", f"this {what} ended a worker and is not tried again; make a new one")
        arrived = time.monotonic()

        def started() -> None:
            call.stages["queue"] = time.monotonic() - arrived

        call.retry_seconds = self.pool.retry_seconds
        return await self.pool.run(Job(name, call.key_set, arguments, digest), on_started=started, **options)

    @contextlib.asynccontextmanager
    async def _files(self, call: Call) -> AsyncIterator[dict[int, str]]:
        """Files of the key set by Galois element, kept for the length of the block."""

        def pinned() -> dict[int, str]:
            files = self.store.files(call.key_set, call.principal.tenant)
            self.store.pin(call.key_set)
            return files

        pinning = asyncio.ensure_future(self.on_disk(pinned))
        try:
            yield await asyncio.shield(pinning)
        finally:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await pinning
            if pinning.done() and not pinning.cancelled() and pinning.exception() is None:
                await self.on_disk(self.store.unpin, call.key_set)

    @contextlib.asynccontextmanager
    async def _whole_files(self, call: Call) -> AsyncIterator[dict[int, str]]:
        async with self._files(call) as files:
            if files.keys() != self.model.keys.keys():
                raise WireError("keys_incomplete", "the upload of the keys is not complete; resume it")
            yield files

    async def _state(self, call: Call, *, ready: bool = False, partial: bool = False) -> messages.UploadState:
        complete = await self.on_disk(self.store.complete, call.key_set, call.principal.tenant)
        part = await self.on_disk(self.store.partial, call.key_set) if partial else None
        return messages.UploadState(
            key_set=call.key_set,
            complete=complete,
            ready=ready,
            partial=[messages.PartialKey(galois_element=part.element, bytes=part.size_bytes, sha256=part.sha256)]
            if part
            else [],
        )

    def _take_work(self) -> None:
        if self.draining:
            raise WireError("draining", "this server is stopping; try again, another one will answer")

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
            check_fresh_frame(inputs[name], self.model.binding, level)
        return inputs


def _digest(parts: Iterable[bytes]) -> str:
    """Names an input in the quarantine."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
