"""The client library: text in, label out, encrypted in between.

with Client("localhost:8443", key_directory=Path("~/.thex").expanduser(), authority=Path("authority.pem")) as client:
    print(client.classify("a gripping, beautifully shot film").label)
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from he_runtime.bundle import CLIENT_FILES, ClientHalf
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.errors import BundleError, HERuntimeError, RangeError, WireError
from he_runtime.evaluation_key import EvaluationKey
from he_runtime.plan import ClientPlan
from he_runtime.seal import SealClient, SecretKey
from he_runtime.secret_store import create_key_file, open_secret_key, store_secret_key
from he_runtime.wire.answers import read_answer
from he_runtime.wire.ciphertexts import SeededCiphertext, read_result_ciphertext, write_input_ciphertext
from he_runtime.wire.evaluation_keys import write_evaluation_key
from he_runtime.wire.message import Binding
from he_runtime.wire.sizes import evaluation_key_bytes
from services._pb import inference_pb2 as messages
from services.client.ahead import made_ahead
from services.client.connection import Timeouts, open_channel, server_errors, stub
from services.client.errors import AnswerError, ClientError, OutOfRangeError, ServerError, TextTooLongError

CHUNK_BYTES = 1 << 20
KEYS_AHEAD = 2  # made while earlier ones are sent: SEAL releases the interpreter lock for most of its work
BUNDLE_BYTES = 64 << 20
Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""


@dataclass(frozen=True)
class Result:
    """An answer. Logits are decrypted CKKS values: round them before you share them with anyone."""

    label: str
    probabilities: dict[str, float]
    logits: tuple[float, ...]
    tokens: int
    bucket: int
    timings: dict[str, float]
    """Seconds: encrypt, server (the program alone), round_trip, decrypt."""
    bytes_up: int
    bytes_down: int


@dataclass
class Client:
    """A connection to one server, with the keys for its model.

    The first use fetches the public half of the model, makes keys, and uploads the evaluation keys; later uses find all of it in
    `key_directory`. The secret key is stored encrypted: under `passphrase` if given, else under a key file beside it.
    """

    target: str
    key_directory: Path
    authority: Path | None = None
    insecure: bool = False
    passphrase: str | None = field(default=None, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_progress: Progress = lambda _phase, _done, _total: None
    allow_insecure_test: bool = False
    """Tests only: accept parameters that hide nothing."""

    def __post_init__(self) -> None:
        self._channel = open_channel(
            self.target, authority=self.authority, insecure=self.insecure, timeouts=self.timeouts
        )
        self._stub = stub(self._channel)
        try:
            self._fetch_model()
        except Exception:
            self._channel.close()
            raise
        self._secret: SecretKey | None = None
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Keys stay, here and at the server."""
        self._channel.close()

    # --- what a user calls -----------------------------------------------------------------------------------------

    def classify(self, text: str) -> Result:
        """Encrypt, send, decrypt. Raises OutOfRangeError rather than giving a label that means nothing."""
        self.prepare()
        ids, types = self.tokenise(text)
        started = time.perf_counter()
        try:
            embedded = self.model.embed(ids, types)
            bucket = self.plan.bucket_for(len(ids))
        except RangeError as error:
            raise OutOfRangeError(str(error)) from None
        except ValueError as error:
            raise TextTooLongError(str(error)) from None
        inputs = self._encrypt(bucket, embedded)
        encrypted = time.perf_counter()
        answer, server_seconds = self._infer(bucket, inputs)
        received = time.perf_counter()
        logits = self._decrypt(bucket, answer)
        finished = time.perf_counter()
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        labels = self.model.config.task.labels
        return Result(
            label=labels[int(logits.argmax())],
            probabilities=dict(zip(labels, probabilities.tolist(), strict=True)),
            logits=tuple(logits.tolist()),
            tokens=len(ids),
            bucket=bucket,
            timings={
                "encrypt": encrypted - started,
                "server": server_seconds,
                "round_trip": received - encrypted,
                "decrypt": finished - received,
            },
            bytes_up=sum(len(item.data) for item in inputs),
            bytes_down=len(answer),
        )

    def tokenise(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids and token types, special tokens included."""
        encoding = self._tokenizer.encode(text)
        return list(encoding.ids), list(encoding.type_ids)

    @property
    def key_bytes(self) -> int:
        """Size of the evaluation keys on the wire."""
        return sum(evaluation_key_bytes(self.plan.parameters, level) for level in self.plan.keys.values())

    def prepare(self) -> None:
        """Make keys and upload what the server lacks. Nothing to do when both are done."""
        if self._ready:
            return
        secret = self._secret_key()
        state = self._open_upload()
        missing = {element: level for element, level in self.plan.keys.items() if element not in set(state.complete)}
        if missing or not state.ready:
            state = self._upload(secret, state.key_set, missing)
        if not state.ready:
            raise ServerError("keys_incomplete", "the server did not accept all keys; try again")
        self._ready = True

    def delete_keys(self) -> None:
        """Have the server forget this client's evaluation keys."""
        key_set = self._stored_key_set()
        if key_set:
            with server_errors():
                self._stub.DeleteKeys(messages.DeleteKeysRequest(key_set=key_set), timeout=self.timeouts.call)
            self._key_set_file.unlink()
        self._ready = False

    # --- model and keys --------------------------------------------------------------------------------------------

    def _fetch_model(self) -> None:
        files: dict[str, bytearray] = {}
        total = 0
        with server_errors():
            for chunk in self._stub.GetClientBundle(messages.GetClientBundleRequest(), timeout=self.timeouts.call):
                if chunk.name not in ("plan.json", "manifest.json", *CLIENT_FILES):
                    raise AnswerError(f"the server sent a file that no client needs: {chunk.name!r}")
                total += len(chunk.data)
                if total > BUNDLE_BYTES:
                    raise AnswerError(f"the server's public half exceeds {BUNDLE_BYTES} bytes")
                files.setdefault(chunk.name, bytearray()).extend(chunk.data)
        try:
            self.plan = ClientPlan.from_json(
                json.loads(files.pop("plan.json")), allow_insecure_test=self.allow_insecure_test
            )
            self._directory = self.key_directory / self.plan.program_digest[:16]
            half = self._directory / "model"
            half.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in files.items():
                (half / name).write_bytes(content)
            self.model = ClientHalf.open(half)
        except (KeyError, ValueError, BundleError, HERuntimeError) as error:
            raise AnswerError(f"the server's public half is not usable: {error}") from None
        self._tokenizer = Tokenizer.from_file(str(half / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._binding = Binding(self.plan.parameters, self.plan.program_digest)
        self._seal = SealClient(self.plan.parameters)

    def _secret_key(self) -> SecretKey:
        if self._secret is None:
            path, key_file = self._directory / "secret.key", self._directory / "storage.key"
            if not path.exists():
                if self.passphrase is None:
                    create_key_file(key_file)
                secret = self._seal.generate_secret_key()
                store_secret_key(path, self._seal, secret, passphrase=self.passphrase, key_file=key_file)
            self._secret = open_secret_key(path, self._seal, passphrase=self.passphrase, key_file=key_file)
        return self._secret

    @property
    def _key_set_file(self) -> Path:
        return self._directory / f"key-set-{self.target.replace('/', '_')}"

    def _stored_key_set(self) -> str:
        return self._key_set_file.read_text() if self._key_set_file.exists() else ""

    def _open_upload(self) -> messages.UploadState:
        def ask(key_set: str) -> messages.UploadState:
            request = messages.OpenUploadRequest(program_digest=self.plan.program_digest, key_set=key_set)
            with server_errors():
                return self._stub.OpenUpload(request, timeout=self.timeouts.call)

        stored = self._stored_key_set()
        try:
            state = ask(stored)
        except ServerError as error:
            if error.reason != "unknown_key_set" or not stored:
                raise
            state = ask("")  # the server forgot us: upload anew
        self._key_set_file.write_text(state.key_set)
        self._key_set_file.chmod(0o600)
        return state

    def _upload(self, secret: SecretKey, key_set: str, missing: dict[int, int]) -> messages.UploadState:
        # With nothing missing one key is sent again: it makes the server load the set.
        wanted = missing or dict(list(self.plan.keys.items())[:1])

        def chunks(keys: Iterator[EvaluationKey]) -> Iterator[messages.KeyChunk]:
            self.on_progress("keys", 0, len(wanted))
            for count, key in enumerate(keys, 1):
                content = write_evaluation_key(key, self._binding)
                for offset in range(0, len(content), CHUNK_BYTES):
                    yield messages.KeyChunk(
                        key_set=key_set,
                        galois_element=key.galois_element,
                        offset=offset,
                        data=content[offset : offset + CHUNK_BYTES],
                    )
                self.on_progress("keys", count, len(wanted))

        with made_ahead(make_evaluation_keys(self._seal, secret, wanted), KEYS_AHEAD) as keys, server_errors():
            return self._stub.UploadKeys(chunks(keys), timeout=self.timeouts.upload)

    # --- one query -------------------------------------------------------------------------------------------------

    def _encrypt(self, bucket: int, embedded: NDArray[np.float64]) -> list[messages.Ciphertext]:
        levels = self.plan.buckets[bucket].input_levels
        secret, scale = self._secret_key(), self.plan.parameters.scale
        inputs = []
        for name, slots in self.plan.pack(bucket, embedded).items():
            sealed = self._seal.encrypt(secret, slots, levels[name], scale)
            if sealed.seed is None:
                raise ClientError("SEAL gave an encryption without a seed; this version of TenSEAL is not supported")
            fresh = SeededCiphertext(sealed.seed, sealed.rows[0], scale)
            inputs.append(messages.Ciphertext(name=name, data=write_input_ciphertext(fresh, self._binding)))
        return inputs

    def _infer(self, bucket: int, inputs: list[messages.Ciphertext]) -> tuple[bytes, float]:
        request = messages.InferRequest(
            key_set=self._stored_key_set(), program_digest=self.plan.program_digest, bucket=bucket, inputs=inputs
        )
        result: Any = None
        with server_errors():
            for event in self._stub.Infer(request, timeout=self.timeouts.infer):
                if event.WhichOneof("event") == "progress":
                    self.on_progress("infer", event.progress.done, event.progress.total)
                else:
                    result = event.result
        if result is None or [item.name for item in result.outputs] != ["logits"]:
            raise AnswerError("the server ended without an answer")
        return bytes(result.outputs[0].data), float(result.seconds)

    def _decrypt(self, bucket: int, answer: bytes) -> NDArray[np.float64]:
        try:
            scale = self.plan.output_scale
            period = self.plan.answer_period
            if period is not None:
                short = read_answer(answer, period, scale, self._binding)
                coefficients = self._seal.decrypt_coefficients(self._secret_key(), short)
                return self.plan.unpack(bucket, self.plan.answer_slots(coefficients))
            rows = read_result_ciphertext(answer, self._binding, 0, scale)
            return self.plan.unpack(bucket, self._seal.decrypt_complex(self._secret_key(), rows, scale))
        except WireError as error:
            raise AnswerError(f"the server's answer is not one: {error.reason}: {error}") from None
        except RangeError as error:
            raise OutOfRangeError(str(error)) from None
