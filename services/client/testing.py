"""A fake server for tests of programs that use the client: a real gRPC service in this process, computing on a tiny ring.

with FakeServer(bundle_directory) as server, server.client(tmp_path) as client:
    server.refuse("Infer", "busy", times=2)        # the client's retries deal with it
    assert client.classify("...").label == "positive"

The ring hides nothing, which is why clients of it must say `allow_insecure_test`. Everything else is as with a real server: the
plan, the keys, the ciphertexts and the answers, so a program that works here works there.
"""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from he_runtime.bundle import Bundle
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.errors import WireError
from he_runtime.execution import encode_constants, run
from he_runtime.parameters import make_parameters
from he_runtime.plan import Plan
from he_runtime.planner import plan_bundle, plan_weights
from he_runtime.wire.answers import write_answer
from he_runtime.wire.ciphertexts import read_input_ciphertext, write_result_ciphertext
from he_runtime.wire.evaluation_keys import read_evaluation_key
from he_runtime.wire.message import DIGEST_BYTES, OVERHEAD_BYTES, Binding
from services import self_test
from services._pb import inference_pb2 as messages
from services._pb import inference_pb2_grpc as service
from services.client.client import Client
from services.client.retries import Retries

RING_DEGREE = 256
_CODES = {
    "unknown_key_set": grpc.StatusCode.NOT_FOUND,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
}


def insecure_test_plan(bundle: Bundle, ring_degree: int = RING_DEGREE, lowering: str | None = None) -> Plan:
    """The bundle's model on a ring that hides nothing; lowered as on a secure one unless `lowering` names another way."""
    secure = plan_bundle(bundle)
    lowering = lowering or secure.lowering
    levels = next(alternative.levels for alternative in secure.alternatives if alternative.name == lowering)
    return plan_weights(
        bundle.weights(),
        bundle.config.buckets,
        logit_range=bundle.config.ranges.logits,
        model_digest=bundle.digest,
        parameters=make_parameters(ring_degree, levels, insecure_test=True),
        lowering=lowering,
    )


@dataclass
class _KeySet:
    contents: dict[int, bytes] = field(default_factory=dict)
    engine: NumbaEngine | None = None


class FakeServer(service.InferenceServicer):  # type: ignore[misc]
    """Serves a bundle on a loopback port, without TLS."""

    def __init__(self, bundle: Path, *, lowering: str | None = None) -> None:
        self._bundle = Bundle.open(bundle)
        self.plan = insecure_test_plan(self._bundle, lowering=lowering)
        self.calls: list[tuple[str, int]] = []
        """(method, payload bytes received) of every call so far."""
        self._binding = Binding(self.plan.parameters, self.plan.digest)
        self._engine = NumbaEngine(self.plan.parameters)
        known: dict[tuple[bytes, int, float], Any] = {}
        self._constants = {b: encode_constants(p, self._engine, known) for b, p in self.plan.programs.items()}
        self._key_sets: dict[str, _KeySet] = {}
        self._refusals: dict[str, list[tuple[str, float | None]]] = {}
        self._lock = threading.RLock()
        self._computing = threading.Lock()  # an engine does one thing at a time
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        service.add_InferenceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()

    # --- what a test does with it ----------------------------------------------------------------------------------

    def client(self, key_directory: Path, **options: Any) -> Client:
        """A client of this server that waits for nothing between retries."""
        options = {"retries": Retries(sleep=lambda _seconds: None), **options}
        return Client(self.target, key_directory, insecure=True, allow_insecure_test=True, **options)

    def refuse(self, method: str, reason: str, *, times: int = 1, retry_seconds: float | None = None) -> None:
        """Answer the next calls of a method with this reason."""
        self._refusals.setdefault(method, []).extend([(reason, retry_seconds)] * times)

    def break_off(self, method: str, *, times: int = 1) -> None:
        """End the next calls of a method as a killed server may: a stream that is reset as cancelled, and no reason."""
        self._refusals.setdefault(method, []).extend([("", None)] * times)

    def forget_keys(self) -> None:
        """As a server that lost its disk."""
        self._key_sets.clear()

    def damage_key(self, galois_element: int) -> None:
        """Replace a key that is here by one of another client: the frame is right, the key is wrong."""
        for key_set in self._key_sets.values():
            key_set.engine = None
            content = key_set.contents[galois_element]
            read_evaluation_key(content, self._binding, self.plan.keys)
            key_set.contents[galois_element] = _with_another_seed(content)

    # --- the service -----------------------------------------------------------------------------------------------

    def GetClientBundle(self, request: Any, context: Any) -> Iterator[messages.FileChunk]:  # noqa: N802
        """The public half."""
        self._arrive("GetClientBundle", request, context)
        yield messages.FileChunk(name="plan.json", data=_json(self.plan))
        for name, content in self._bundle.client_half_files().items():
            yield messages.FileChunk(name=name, data=content)

    def OpenUpload(self, request: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Begin, or say how far an upload got."""
        self._arrive("OpenUpload", request, context)
        name = request.key_set or secrets.token_hex(16)
        if not request.key_set:
            self._key_sets[name] = _KeySet()
        return self._state(name, context)

    def UploadKeys(self, request_iterator: Any, context: Any) -> messages.UploadState:  # noqa: N802
        """Keys in chunks."""
        name, total, parts = "", 0, dict[int, bytearray]()
        for chunk in request_iterator:
            name, total = chunk.key_set, total + len(chunk.data)
            parts.setdefault(chunk.galois_element, bytearray()).extend(chunk.data)
        self.calls.append(("UploadKeys", total))
        self._refuse_if_asked("UploadKeys", context)
        key_set = self._find(name, context)
        for element, content in parts.items():
            self._check(
                lambda content=content: read_evaluation_key(bytes(content), self._binding, self.plan.keys), context
            )
            key_set.contents[element] = bytes(content)
        return self._state(name, context)

    def SelfTest(self, request: Any, context: Any) -> messages.SelfTestResponse:  # noqa: N802
        """Every key once."""
        self._arrive("SelfTest", request, context)
        engine = self._loaded(request.key_set, context)
        level, scale = max(self.plan.keys.values()), self.plan.parameters.scale
        fresh = self._check(lambda: read_input_ciphertext(request.input, self._binding, level, scale), context)
        with self._computing:
            x = engine.from_seeded(fresh.seed, fresh.rows, fresh.scale)
            results = self_test.self_test(engine, self.plan.keys, x)
        rotations, square = (
            b"" if result is None else write_result_ciphertext(engine.to_rows(result), result.scale, self._binding)
            for result in results
        )
        return messages.SelfTestResponse(rotations=rotations, square=square)

    def Infer(self, request: Any, context: Any) -> Iterator[messages.InferEvent]:  # noqa: N802
        """One result."""
        self._arrive("Infer", request, context)
        engine = self._loaded(request.key_set, context)
        program = self.plan.programs[request.bucket]
        inputs = {}
        for item in request.inputs:
            value = program.inputs[item.name]
            fresh = self._check(
                lambda item=item, value=value: read_input_ciphertext(
                    item.data, self._binding, value.level, value.scale
                ),
                context,
            )
            inputs[item.name] = engine.from_seeded(fresh.seed, fresh.rows, fresh.scale)
        with self._computing:
            result = run(program, engine, self._constants[request.bucket], inputs)["logits"]
        period = self.plan.client_plan().answer_period
        if period is None:
            data = write_result_ciphertext(engine.to_rows(result), result.scale, self._binding)
        else:
            data = write_answer(engine.to_coefficients(result), period, result.scale, self._binding)
        answer = messages.InferResult(outputs=[messages.Ciphertext(name="logits", data=data)], seconds=0.0)
        yield messages.InferEvent(result=answer)

    def DeleteKeys(self, request: Any, context: Any) -> messages.DeleteKeysResponse:  # noqa: N802
        """Forget keys."""
        self._arrive("DeleteKeys", request, context)
        self._find(request.key_set, context)
        del self._key_sets[request.key_set]
        return messages.DeleteKeysResponse()

    # --- pieces ----------------------------------------------------------------------------------------------------

    def _arrive(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request.ByteSize()))
        self._refuse_if_asked(method, context)

    def _refuse_if_asked(self, method: str, context: Any) -> None:
        with self._lock:
            waiting = self._refusals.get(method)
            if not waiting:
                return
            reason, seconds = waiting.pop(0)
        if not reason:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        self._abort(context, reason, "as the test asked", seconds)

    def _abort(self, context: Any, reason: str, message: str, seconds: float | None = None) -> None:
        code = _CODES.get(reason, grpc.StatusCode.FAILED_PRECONDITION)
        details = [error_details_pb2.ErrorInfo(reason=reason, domain="thex.v1")]
        if seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(seconds * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        boxes = []
        for detail in details:
            box = any_pb2.Any()
            box.Pack(detail)
            boxes.append(box)
        number: int = code.value[0]
        status = status_pb2.Status(code=number, message=message, details=boxes)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, f"{reason}: {message}")

    def _check(self, read: Any, context: Any) -> Any:
        try:
            return read()
        except WireError as error:
            self._abort(context, error.reason, str(error))

    def _find(self, name: str, context: Any) -> _KeySet:
        if name not in self._key_sets:
            self._abort(context, "unknown_key_set", "there are no keys of that name here; upload them again")
        return self._key_sets[name]

    def _loaded(self, name: str, context: Any) -> NumbaEngine:
        key_set = self._find(name, context)
        with self._lock:
            if key_set.engine is None:
                engine = self._engine.without_keys()
                for content in key_set.contents.values():
                    key = read_evaluation_key(content, self._binding, self.plan.keys)
                    engine.load_key(key.galois_element, key.level, key.digits)
                key_set.engine = engine
            return key_set.engine

    def _state(self, name: str, context: Any) -> messages.UploadState:
        complete = sorted(self._find(name, context).contents)
        return messages.UploadState(key_set=name, complete=complete, ready=set(complete) == set(self.plan.keys))


def _with_another_seed(content: bytes) -> bytes:
    """The key's message with the seed of its first digit changed, and a digest that agrees."""
    head = OVERHEAD_BYTES - DIGEST_BYTES
    changed = content[:head] + bytes([content[head] ^ 1]) + content[head + 1 : -DIGEST_BYTES]
    return changed + hashlib.sha256(changed).digest()


def _json(plan: Plan) -> bytes:
    return json.dumps(plan.client_plan().to_json()).encode()
