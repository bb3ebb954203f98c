"""A bundle measured on a task's dev file: in the clear, on the simulator, or encrypted through a real client and server.

Every finished example is one line of an append-only file named after the bundle's digest and the mode, so that a stopped run
resumes and loses nothing. The lines hold logits of a public data file under keys that are thrown away with the run.
"""

import contextlib
import hashlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
from services.client.errors import OutOfRangeError
from services.local import local_server
from services.plain_answers import PlainAnswers
from services.truncation import truncating_tokenizer
from thex.metrics import agreement, cosines, score
from thex.tasks import Example, Task, find_task, read_split

Mode = Literal["plain", "simulate", "encrypted"]
MODES: tuple[Mode, ...] = ("plain", "simulate", "encrypted")
REGRESSION_TOLERANCE = 1e-2
"""Two scores of a regression agree when they differ by no more: a hundredth of a point of STS-B's five."""
EMBEDDING_COSINE = 0.9999
"""Two vectors of a text agree when their cosine is no less."""
Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
Connect = Callable[[Path], contextlib.AbstractContextManager[Client]]
"""From a bundle's directory to a client, one that truncates, of a server of it."""


class NothingToMeasureError(ValueError):
    """Not one text has an answer in range."""


@dataclass(frozen=True)
class Answer:
    """One finished example. index: its row in the dev file; text: digest of its tokens. logits: None where out of range."""

    index: int
    text: str
    logits: list[float] | None
    seconds: float


def evaluate(
    directory: Path,
    data: Path,
    mode: Mode,
    *,
    limit: int | None = None,
    answers: Path = Path("runs/evaluate"),
    threads: int = 2,
    connect: Connect | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Metrics of a bundle on data's dev file.

    limit: a fixed random sample of so many examples, None for all; a larger one contains a smaller one. answers: where
    finished examples are kept. Texts longer than the bundle's largest bucket are cut, as in training.
    connect: a client of a server of the bundle; by default both are started on this machine.
    ValueError when the data is of another task than the bundle.
    """
    bundle, task, examples, tokens = _read_both(directory, data)
    chosen = _chosen(task, len(examples), limit)
    asking = partial(answering, mode, bundle, connect or local_client(threads))
    done = finished(kept_answers(answers, bundle, mode), chosen, examples, tokens, asking, progress)
    return {
        "mode": mode,
        "bundle": bundle.digest,
        **_summary(bundle, task, examples, tokens, [done[i] for i in sorted(chosen)]),
    }


def finished(
    kept: Path,
    chosen: list[int],
    examples: Sequence[Example],
    tokens: Sequence[tuple[list[int], list[int]]],
    asking: "Callable[[], contextlib.AbstractContextManager[Ask]]",
    progress: Progress,
) -> dict[int, Answer]:
    """Answers of the chosen examples: those that the file `kept` has, and the others asked and added to it one by one."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = _read(kept)
    missing = [index for index in chosen if _stale(done.get(index), tokens[index])]
    if missing:
        with asking() as ask, kept.open("a", encoding="utf-8") as file:
            for count, index in enumerate(missing, 1):
                started = time.perf_counter()
                answer = ask(examples[index], *tokens[index])
                seconds = round(time.perf_counter() - started, 3)
                values = None if answer is None else answer.round(6).tolist()
                done[index] = Answer(index, _digest(tokens[index]), values, seconds)
                file.write(json.dumps(asdict(done[index])) + "\n")
                file.flush()
                progress(len(chosen) - len(missing) + count, len(chosen))
    return done


def answered(directory: Path, data: Path, mode: Mode, answers: Path) -> int:
    """The largest limit for which `evaluate` finds all its examples answered already."""
    bundle, task, examples, tokens = _read_both(directory, data)
    done = _read(kept_answers(answers, bundle, mode))
    there = {index for index, of in enumerate(tokens) if not _stale(done.get(index), of)}
    return sum(1 for _ in itertools.takewhile(there.__contains__, _order(task, len(examples))))


def _read_both(directory: Path, data: Path) -> tuple[Bundle, Task, list[Example], list[Any]]:
    """Bundle, task, the dev file's examples and their tokens; ValueError when the data is of another task than the bundle."""
    bundle = Bundle.open(directory)
    task = find_task(bundle.config.task.name, data)
    if (task.kind, task.labels) != (bundle.config.task.kind, bundle.config.task.labels):
        raise ValueError(f"{directory} answers {bundle.config.task.labels}, the task {task.name} has {task.labels}")
    examples = read_split(task, data, "dev")
    return bundle, task, examples, tokens_of(bundle, examples)


def kept_answers(answers: Path, bundle: Bundle, mode: Mode) -> Path:
    """The file under answers that a bundle's finished examples are kept in."""
    return answers / f"{bundle.digest[:16]}-{mode}.jsonl"


def _order(task: Task, count: int) -> list[int]:
    """The rows of a dev file in the order in which they are asked: fixed, random; sentences to embed stay in pairs."""
    if task.kind != "embedding":
        return random.Random(0).sample(range(count), count)
    return [2 * pair + side for pair in random.Random(0).sample(range(count // 2), count // 2) for side in (0, 1)]


def _chosen(task: Task, count: int, limit: int | None) -> list[int]:
    """A sample of so many examples, in that order; of sentences to embed whole pairs."""
    if limit is not None and task.kind == "embedding":
        limit += limit % 2
    return _order(task, count)[:limit]


def tokens_of(bundle: Bundle, examples: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
    """Ids and types of each, cut as in training."""
    tokenizer = truncating_tokenizer(bundle)
    texts = [example.first if example.second is None else (example.first, example.second) for example in examples]
    return [(list(encoding.ids), list(encoding.type_ids)) for encoding in tokenizer.encode_batch(texts)]


def _digest(tokens: tuple[list[int], list[int]]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[int, Answer]:
    """The last whole line of each example; a line that a crash cut short is left out."""
    answers = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                answer = Answer(**json.loads(line))
                answers[answer.index] = answer
    return answers


def _stale(answer: Answer | None, tokens: tuple[list[int], list[int]]) -> bool:
    return answer is None or answer.text != _digest(tokens)


def _summary(
    bundle: Bundle, task: Task, examples: list[Example], tokens: list[Any], answers: list[Answer]
) -> dict[str, Any]:
    model = PlainAnswers(bundle)
    given = [answer for answer in answers if answer.logits is not None]
    if task.kind == "embedding":  # of a pair, one sentence proves nothing
        there = {answer.index for answer in given}
        given = [answer for answer in given if answer.index ^ 1 in there]
    if not given:
        raise NothingToMeasureError(f"none of {len(answers)} texts has an answer in range; there is nothing to measure")
    found = np.array([answer.logits for answer in given])
    plain = np.array([shown(task.kind, model.outputs(*tokens[answer.index])) for answer in given])
    labels = np.array([examples[answer.index].label for answer in given])
    metrics = score(task, found, labels)
    main = next(iter(metrics))
    if task.kind == "regression":
        agree = 100 * float((np.abs(found - plain) <= REGRESSION_TOLERANCE).all(axis=1).mean())
    elif task.kind == "embedding":
        agree = 100 * float((cosines(found, plain) >= EMBEDDING_COSINE).mean())
    else:
        agree = agreement(task, found, plain, labels)
    return {
        "task": task.name,
        "metric": main,
        "value": round(metrics[main], 3),
        "metrics": {name: round(value, 3) for name, value in metrics.items()},
        "count": len(given),
        "agree": round(agree, 3),
        "max_logit_error": float(np.abs(found - plain).max()),
        **({"worst_cosine": float(cosines(found, plain).min())} if task.kind == "embedding" else {}),
        "out_of_range": sum(answer.logits is None for answer in answers),
        "seconds_per_example": statistics.median(answer.seconds for answer in given),
    }


def shown(kind: str, outputs: Array) -> Array:
    """Outputs as a client shows them: an embedding has unit length."""
    return outputs / np.linalg.norm(outputs) if kind == "embedding" else outputs


Ask = Callable[[Example, list[int], list[int]], Array | None]
"""Logits of an example, given with its token ids and types; None where they are out of range."""


@contextlib.contextmanager
def answering(mode: Mode, bundle: Bundle, connect: Connect) -> Iterator[Ask]:
    """What answers examples in a mode."""
    if mode == "encrypted":
        with connect(bundle.directory) as client:
            yield _ask_client(client)
        return
    model = PlainAnswers(bundle)
    simulator = Simulator(plan_bundle(bundle)) if mode == "simulate" else None

    def answer(_example: Example, ids: list[int], types: list[int]) -> Array | None:
        try:
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
    def answer(example: Example, ids: list[int], types: list[int]) -> Array | None:
        try:
            kind = client.model.config.task.kind
            if kind == "embedding":
                return client.embed_one(example.first).vector.astype(np.float64)
            if kind == "search":
                return client.outputs_of(ids, types)
            return np.array(client.classify(example.first, example.second).logits)
        except OutOfRangeError:
            return None

    return answer
