"""What answers questions about a bundle: the model in the clear, its program on the simulator, or a real client and server."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import Bundle
from he_runtime.engines.plain import PlainEngine
from he_runtime.errors import RangeError
from he_runtime.execution import encode_constants, run
from he_runtime.plan import Plan
from he_runtime.planner import plan_bundle
from services.client.client import Client
from services.client.errors import NotBelievedError, OutOfRangeError
from services.local import local_server
from services.plain_answers import PlainAnswers
from services.truncation import truncating_tokenizer
from thex.tasks import Example

Mode = Literal["plain", "simulate", "encrypted"]
MODES: tuple[Mode, ...] = ("plain", "simulate", "encrypted")
Array = NDArray[np.float64]
Connect = Callable[[Path], contextlib.AbstractContextManager[Client]]
"""From a bundle's directory to a client, one that truncates, of a server of it."""


@dataclass(frozen=True)
class Question:
    """Token ids and types, cut as in training. example: what a client is given; None where there are tokens alone."""

    ids: list[int]
    types: list[int]
    example: Example | None = None

    @property
    def digest(self) -> str:
        """Of the tokens."""
        return hashlib.sha256(json.dumps((self.ids, self.types)).encode()).hexdigest()[:12]


Ask = Callable[[Question], Array | None]
"""Outputs as a client shows them, float64 [outputs]; None where they are refused: out of range, or not to be believed."""
Asking = Callable[[], contextlib.AbstractContextManager[Ask]]
"""Starts what answers."""


def questions_of(bundle: Bundle, examples: Sequence[Example]) -> list[Question]:
    """One of each example."""
    tokenizer = truncating_tokenizer(bundle)
    texts = [example.first if example.second is None else (example.first, example.second) for example in examples]
    encoded = tokenizer.encode_batch(texts)
    return [
        Question(list(encoding.ids), list(encoding.type_ids), example)
        for encoding, example in zip(encoded, examples, strict=True)
    ]


def shown(kind: str, outputs: Array) -> Array:
    """Outputs as a client shows them: an embedding has unit length."""
    return outputs / np.linalg.norm(outputs) if kind == "embedding" else outputs


@contextlib.contextmanager
def answering(mode: Mode, bundle: Bundle, connect: Connect) -> Iterator[Ask]:
    """What answers in a mode."""
    if mode == "encrypted":
        with connect(bundle.directory) as client:
            yield _ask_client(client)
        return
    model = PlainAnswers(bundle)
    simulator = Simulator(plan_bundle(bundle)) if mode == "simulate" else None

    def answer(question: Question) -> Array | None:
        try:
            ids, types = question.ids, question.types
            outputs = model.outputs(ids, types) if simulator is None else simulator(model.embedded(ids, types))
            return shown(bundle.config.task.kind, model.in_range(outputs))
        except RangeError:
            return None

    yield answer


class Simulator:
    """The encrypted program on the plain engine, with noise of the size that CKKS has."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._client = plan, plan.client_plan()
        self._engine = PlainEngine(plan.parameters, keys=plan.keys, noise=True)
        self._constants: dict[int, list[Any]] = {}

    def __call__(self, embedded: Array) -> Array:
        """Logits of one text, embedded [tokens, hidden]. RangeError where a value would wrap around the modulus."""
        bucket = self._client.bucket_for(len(embedded))
        program = self._plan.programs[bucket]
        if bucket not in self._constants:
            self._constants[bucket] = encode_constants(program, self._engine)
        inputs = {
            name: self._engine.encrypt(slots, program.inputs[name].level, self._plan.parameters.scale)
            for name, slots in self._client.pack(bucket, embedded).items()
        }
        outputs = run(program, self._engine, self._constants[bucket], inputs)
        return self._client.unpack(bucket, outputs["logits"].slots)


def local_client(threads: int) -> Connect:
    """A real server in another process, TLS, and a client whose keys are thrown away."""

    @contextlib.contextmanager
    def connect(directory: Path) -> Iterator[Client]:
        with (
            tempfile.TemporaryDirectory(prefix="thex-client-") as keys,
            local_server(directory, threads=threads) as server,
            Client(server.target, Path(keys), server.authority, truncate=True) as client,
        ):
            client.prepare()
            yield client

    return connect


def _ask_client(client: Client) -> Ask:
    kind = client.model.config.task.kind

    def answer(question: Question) -> Array | None:
        example = question.example
        try:
            if example is None or kind == "search":
                return shown(kind, client.outputs_of(question.ids, question.types))
            if kind == "embedding":
                return client.embed_one(example.first).vector.astype(np.float64)
            return np.array(client.classify(example.first, example.second).logits)
        except (OutOfRangeError, NotBelievedError):
            return None

    return answer
