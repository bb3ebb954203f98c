"""The client library: text in, label or vector out, encrypted in between.

with Client("localhost:8443", key_directory=Path("~/.thex").expanduser(), authority=Path("authority.pem")) as client:
    print(client.classify("a gripping, beautifully shot film").label)

After decryption nothing is sent that depends on what was decrypted: the number, order and sizes of messages depend on the text's
length bucket alone.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import CLIENT_FILES, ClientHalf
from he_runtime.client_plan import ClientPlan
from he_runtime.seal import SecretKey
from he_runtime.wire.sizes import evaluation_key_bytes
from services._pb import inference_pb2 as messages
from services.client.ahead import made_ahead
from services.client.connection import Connection, Identity, Timeouts
from services.client.directory_lock import locked, read_if_there, write_whole
from services.client.errors import AnswerError, KeysUnknownError, SelfTestError, ServerError
from services.client.key_cache import KEY_SET, KeyCache
from services.client.key_processes import key_maker
from services.client.result import Embedding, Match, Result, length_of, nearest
from services.client.retries import Retries
from services.client.session import Prepared, Session

CHUNK_BYTES = 1 << 20
KEYS_AHEAD = 2  # made, or in hand, beyond those that are being made at once
BUNDLE_BYTES = 64 << 20
Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""


@dataclass(frozen=True)
class _Answer:
    """A decrypted answer. outputs: float64, logits or an embedding's features; the rest as of a Result."""

    prepared: Prepared
    outputs: NDArray[np.float64]
    timings: dict[str, float]
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class _Keys:
    """What queries are made under: a secret key, and the server's key set that was tested with it.

    stamp: of the secret's file, by which it is known whether another process has put other keys in its place since.
    """

    secret: SecretKey
    key_set: str
    stamp: tuple[int, int] | None


@dataclass
class Client:
    """A connection to one server, with the keys for its model.

    The first use fetches the public half of the model, makes keys, uploads the evaluation keys, and tests on a random vector that
    the server computes rightly with them; later uses find all of it in `key_directory`. The secret key is stored encrypted: under
    `passphrase` if given, else under a key file beside it.

    Every call is finite (`timeouts`); what failed in passing is repeated (`retries`), a query always under fresh randomness.
    Threads may share one, and processes a key directory.
    """

    target: str
    key_directory: Path
    authority: Path | None = None
    insecure: bool = False
    passphrase: str | None = field(default=None, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_progress: Progress = lambda _phase, _done, _total: None
    identity: Identity = field(default_factory=Identity)
    retries: Retries = field(default_factory=Retries)
    truncate: bool = False
    """Cut a text at what the largest bucket holds, as in training, instead of refusing it; `Result.cut` says how much."""
    bundle_digest: str | None = None
    """Ask a server of this bundle alone: SHA-256 of its manifest.json, which `thex explain BUNDLE` prints. Tokenizer, embeddings
    and buckets, which decide all that a query's size tells, are then those that you know."""
    keep_evaluation_keys: bool = True
    """Keep what was uploaded on this disk too (a third of a gigabyte for the shipped model), to send it again as it is."""
    key_processes: int | None = None
    """Processes that make evaluation keys; None: one a core, four at most, where there is much to make."""
    allow_insecure_test: bool = False
    """Tests only: accept parameters that hide nothing."""

    def __post_init__(self) -> None:
        self._connection = Connection(
            self.target,
            authority=self.authority,
            insecure=self.insecure,
            identity=self.identity,
            timeouts=self.timeouts,
        )
        try:
            files = self.retries.run(self._fetch_model)
            self.session = Session(
                self.key_directory,
                files,
                bundle_digest=self.bundle_digest,
                truncate=self.truncate,
                allow_insecure_test=self.allow_insecure_test,
            )
        except Exception:
            self._connection.close()
            raise
        self._cache = KeyCache(
            self.session.directory, self.session.seal, self.session.binding, self.passphrase, self.keep_evaluation_keys
        )
        self._keys: _Keys | None = None
        self._preparing = threading.RLock()  # of threads that ask at once, one makes the keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Keys stay, here and at the server."""
        self._connection.close()

    def cancel(self) -> None:
        """End what another thread is waiting for: what is encrypted meanwhile is not sent, and the server stops working."""
        self._connection.cancel()

    # --- what a user calls -----------------------------------------------------------------------------------------

    @property
    def plan(self) -> ClientPlan:
        """What is public of the served program."""
        return self.session.plan

    @property
    def model(self) -> ClientHalf:
        """The public half of the model: configuration and embeddings."""
        return self.session.model

    @property
    def labels(self) -> tuple[str, ...]:
        """What an answer can be."""
        return tuple(self.session.model.config.task.labels)

    @property
    def key_bytes(self) -> int:
        """Size of the evaluation keys on the wire."""
        return sum(evaluation_key_bytes(self.plan.parameters, level) for level in self.plan.keys.values())

    def classify(self, text: str, second: str | None = None) -> Result:
        """Encrypt, send, decrypt. Raises OutOfRangeError rather than giving a label that means nothing.

        second: the other text, for a model of pairs. ValueError for a model that embeds or searches.
        """
        self.expect_kind("classification", "regression")
        return _result(self._ask(self.session.prepare(text, second)), self.labels)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [texts, features] of unit length, one query each, in order. Raises as classify does."""
        vectors = [self.embed_one(text).vector for text in texts]
        width = self.model.config.architecture.hidden
        return np.stack(vectors) if vectors else np.zeros((0, width), np.float32)

    def embed_one(self, text: str) -> Embedding:
        """One text's vector, and what it took. ValueError for a model that does not embed."""
        self.expect_kind("embedding")
        answer = self._ask(self.session.prepare(text))
        return Embedding(
            vector=(answer.outputs / length_of(answer.outputs)).astype(np.float32),
            tokens=answer.prepared.tokens,
            cut=answer.prepared.cut,
            bucket=answer.prepared.bucket,
            timings=answer.timings,
            bytes_up=answer.bytes_up,
            bytes_down=answer.bytes_down,
        )

    def search(self, text: str, top: int = 10) -> list[Match]:
        """The `top` passages of the server's corpus nearest to the text, best first; the server does not know which.

        ValueError for a model that does not search.
        """
        self.expect_kind("search")
        outputs = self._ask(self.session.prepare(text)).outputs
        return nearest(outputs, self.model.config.task.passages, top)

    def expect_kind(self, *kinds: str) -> None:
        """ValueError unless the served model is of one of these kinds: said before keys are made for it."""
        kind = self.model.config.task.kind
        if kind not in kinds:
            call = {"embedding": "embed", "search": "search"}.get(kind, "classify")
            raise ValueError(f"this server's model is for {kind}: call {call}")

    def outputs_of(self, ids: list[int], types: list[int]) -> NDArray[np.float64]:
        """Logits, or a vector as it comes, of a text given as tokens: for measuring with inputs that no text gives."""
        return self._ask(self.session.prepare_tokens(ids, types)).outputs

    def tokenise(self, text: str, second: str | None = None) -> tuple[list[int], list[int]]:
        """Token ids and token types, special tokens included, cut if this client truncates."""
        return self.session.tokenise(text, second)

    def prepare(self) -> None:
        """Make keys, upload what the server lacks, test them. Nothing to do when all is done."""
        self._fitting_keys()

    def _fitting_keys(self) -> _Keys:
        with self._preparing:
            if self._keys is None or self._keys.stamp != self._cache.stamp():
                with self._alone():
                    self._keys = self._prepare()
            return self._keys

    def _prepare(self) -> _Keys:
        secret = self._cache.secret()
        tested = self.retries.run(lambda: self._upload(secret))
        if not tested:
            try:
                self.retries.run(lambda: self._self_test(secret))
            except SelfTestError:
                # Keys that compute wrongly would fail every query. The secret goes too, before anything else is sent: a server
                # that answers a test dishonestly learns one bit of a secret that nobody uses any more.
                key_set = self._stored_key_set()
                self._keys = None
                self._cache.forget_secret()
                if key_set:  # an empty name would be all that this identity has there
                    self._delete_key_set(key_set)
                raise
            write_whole(self._tested_file, self._stored_key_set())
        return _Keys(secret, self._stored_key_set(), self._cache.stamp())

    def delete_keys(self, *, everything: bool = False) -> None:
        """Have the server forget this client's evaluation keys: those of this directory, or all that it has of this identity."""
        with self._preparing, self._alone():
            self._delete_keys(everything=everything)

    def rotate_keys(self) -> None:
        """Forget all keys, the secret one too, here and at the server; make new ones, upload them, and test them.

        What other servers of this program have of the old ones fits nothing any more: they are sent new ones when asked next.
        """
        with self._preparing, self._alone():
            self._delete_keys(everything=False)
            self._cache.forget_secret()
            self._keys = self._prepare()

    def _alone(self) -> AbstractContextManager[None]:
        # Of processes that share a key directory too, one makes the keys: others would mix theirs with them.
        return locked(self.session.directory, self.timeouts.upload)

    def _delete_keys(self, *, everything: bool) -> None:
        key_set = "" if everything else self._stored_key_set()
        if key_set or everything:
            self._delete_key_set(key_set)
            self._key_set_file.unlink(missing_ok=True)
            self._tested_file.unlink(missing_ok=True)
        self._keys = None

    def _delete_key_set(self, key_set: str) -> None:
        """At the server; an empty name is all that it has of this identity."""
        request = messages.DeleteKeysRequest(key_set=key_set)
        with contextlib.suppress(KeysUnknownError):  # as wished
            self.retries.run(lambda: self._connection.call("DeleteKeys", request, self.timeouts.call))

    # --- model and keys --------------------------------------------------------------------------------------------

    def _fetch_model(self) -> dict[str, bytes]:
        files: dict[str, bytearray] = {}
        total = 0
        request = messages.GetClientBundleRequest()
        for chunk in self._connection.stream("GetClientBundle", request, self.timeouts.call):
            if chunk.name not in ("plan.json", "manifest.json", *CLIENT_FILES):
                raise AnswerError(f"the server sent a file that no client needs: {chunk.name!r}")
            total += len(chunk.data)
            if total > BUNDLE_BYTES:
                raise AnswerError(f"the server's public half exceeds {BUNDLE_BYTES} bytes")
            files.setdefault(chunk.name, bytearray()).extend(chunk.data)
        return {name: bytes(content) for name, content in files.items()}

    @property
    def _key_set_file(self) -> Path:
        return self.session.directory / f"{KEY_SET}{self.target.replace('/', '_')}"

    @property
    def _tested_file(self) -> Path:
        return self._key_set_file.with_name(f"{self._key_set_file.name}-tested")

    def _stored_key_set(self) -> str:
        return read_if_there(self._key_set_file)

    def _open_upload(self) -> messages.UploadState:
        def ask(key_set: str) -> messages.UploadState:
            request = messages.OpenUploadRequest(program_digest=self.plan.program_digest, key_set=key_set)
            return self._connection.call("OpenUpload", request, self.timeouts.call)

        stored = self._stored_key_set()
        try:
            state = ask(stored)
        except KeysUnknownError:
            if not stored:
                raise
            state = ask("")  # the server forgot us: upload anew
        write_whole(self._key_set_file, state.key_set)
        return state

    def _upload(self, secret: SecretKey) -> bool:
        """Send what is missing, from where the last attempt stopped; whether the set was whole and tested before."""
        state = self._open_upload()
        missing = {element: level for element, level in self.plan.keys.items() if element not in set(state.complete)}
        if not missing:
            tested = read_if_there(self._tested_file) == state.key_set
            if tested:
                return True
        if missing:
            begun = {part.galois_element: part for part in state.partial}
            state = self._send(secret, state.key_set, missing, begun)
            if not state.ready:
                raise ServerError("keys_incomplete", "the server did not accept all keys; try again")
        return False

    def _send(
        self, secret: SecretKey, key_set: str, missing: dict[int, int], begun: dict[int, messages.PartialKey]
    ) -> messages.UploadState:
        failed: list[Exception] = []

        def chunks(keys: Iterator[bytes]) -> Iterator[messages.KeyChunk]:
            self.on_progress("keys", 0, len(missing))
            try:
                for count, (element, content) in enumerate(zip(missing, keys, strict=False), 1):
                    for offset in range(_offset(begun.get(element), content), len(content), CHUNK_BYTES):
                        data = content[offset : offset + CHUNK_BYTES]
                        yield messages.KeyChunk(key_set=key_set, galois_element=element, offset=offset, data=data)
                    self.on_progress("keys", count, len(missing))
            except Exception as error:  # gRPC's thread would swallow it: the stream ends here, and the call raises it
                failed.append(error)

        with (
            key_maker(self._cache, secret, missing, self.key_processes) as (make, threads),
            made_ahead(make, missing.items(), threads=threads, depth=threads + KEYS_AHEAD) as keys,
        ):
            try:
                state = self._connection.call("UploadKeys", chunks(keys), self.timeouts.upload)
            except ServerError:
                if not failed:
                    raise
        if failed:
            raise failed[0]
        return state

    def _self_test(self, secret: SecretKey) -> None:
        x, content = self.session.encrypt_self_test(secret)
        request = messages.SelfTestRequest(
            key_set=self._stored_key_set(), program_digest=self.plan.program_digest, input=content
        )
        answer = self._connection.call("SelfTest", request, self.timeouts.infer)
        self.session.check_self_test(secret, x, answer.rotations, answer.square)

    # --- one query -------------------------------------------------------------------------------------------------

    def _ask(self, prepared: Prepared) -> _Answer:
        still_wanted = self._connection.watch()
        keys: _Keys | None = None
        try:
            keys = self._fitting_keys()
            return self._repeated_query(keys, prepared, still_wanted)
        except KeysUnknownError:
            # The server forgot the keys (they expired, it lost its disk): send them once more, unless somebody did.
            with self._preparing:
                if self._keys is keys:
                    self._keys = None
                keys = self._fitting_keys()
            return self._repeated_query(keys, prepared, still_wanted)

    def _repeated_query(self, keys: _Keys, prepared: Prepared, still_wanted: Callable[[], None]) -> _Answer:
        return self.retries.run(lambda: self._query(keys, prepared, still_wanted))

    def _query(self, keys: _Keys, prepared: Prepared, still_wanted: Callable[[], None]) -> _Answer:
        still_wanted()
        started = time.perf_counter()
        inputs = self.session.encrypt(keys.secret, prepared)
        encrypted = time.perf_counter()
        still_wanted()
        answer, server_seconds = self._infer(keys.key_set, prepared.bucket, inputs, still_wanted)
        received = time.perf_counter()
        outputs = self.session.decrypt(keys.secret, prepared.bucket, answer)
        finished = time.perf_counter()
        return _Answer(
            prepared,
            outputs,
            timings={
                "encrypt": encrypted - started,
                "server": server_seconds,
                "round_trip": received - encrypted,
                "decrypt": finished - received,
            },
            bytes_up=sum(len(content) for content in inputs.values()),
            bytes_down=len(answer),
        )

    def _infer(
        self, key_set: str, bucket: int, inputs: dict[str, bytes], still_wanted: Callable[[], None]
    ) -> tuple[bytes, float]:
        request = messages.InferRequest(
            key_set=key_set,
            program_digest=self.plan.program_digest,
            bucket=bucket,
            inputs=[messages.Ciphertext(name=name, data=data) for name, data in inputs.items()],
        )
        result: Any = None
        for event in self._connection.stream("Infer", request, self.timeouts.infer, still_wanted):
            if event.WhichOneof("event") == "progress":
                self.on_progress("infer", event.progress.done, event.progress.total)
            else:
                result = event.result
        if result is None or [item.name for item in result.outputs] != ["logits"]:
            raise AnswerError("the server ended without an answer")
        return bytes(result.outputs[0].data), float(result.seconds)


def _result(answer: _Answer, labels: tuple[str, ...]) -> Result:
    logits = answer.outputs
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    return Result(
        label=labels[int(logits.argmax())] if labels else "",
        probabilities=dict(zip(labels, probabilities.tolist(), strict=True)) if labels else {},
        logits=tuple(logits.tolist()),
        tokens=answer.prepared.tokens,
        cut=answer.prepared.cut,
        bucket=answer.prepared.bucket,
        timings=answer.timings,
        bytes_up=answer.bytes_up,
        bytes_down=answer.bytes_down,
    )


def _offset(part: messages.PartialKey | None, content: bytes) -> int:
    """Where to go on: after the bytes that the server has, if they are this key's."""
    if part is None or hashlib.sha256(content[: part.bytes]).digest() != part.sha256:
        return 0
    return int(part.bytes)
