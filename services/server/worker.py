"""The worker process: owns the evaluator, one job at a time. Sees ciphertexts and evaluation keys only.

It talks to the front over a pipe: ("ready", plan JSON, files) once, then for each job any number of ("progress", done, total)
and one of ("done", payload), ("refused", reason, message), ("failed", what) or ("cancelled",).
"""

import json
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from he_runtime.allocation import keep_freed_memory
from he_runtime.bundle import Bundle
from he_runtime.constant_cache import constants_of, wants_compact_tables
from he_runtime.cost import program_milliseconds
from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.errors import HERuntimeError, WireError
from he_runtime.execution import CancelledError, run
from he_runtime.parameters import make_parameters
from he_runtime.plan import Plan
from he_runtime.planner import plan_bundle, plan_weights
from he_runtime.rehearsal import rehearse
from he_runtime.wire.answers import write_answer
from he_runtime.wire.ciphertexts import read_input_ciphertext, write_result_ciphertext
from he_runtime.wire.evaluation_keys import read_evaluation_key
from he_runtime.wire.message import Binding
from services.self_test import self_test
from services.server.rerandomise import public_key, rerandomised
from services.server.worker_entry import WorkerSettings, limit_this_job

PROGRESS_SECONDS = 0.2
MOST_REHEARSAL_MILLISECONDS = 60_000


class Worker:
    """Everything that a job needs."""

    def __init__(
        self, plan: Plan, threads: int, cancelled: Any, cache_directory: Path | None = None, *, loaded_key_sets: int = 2
    ) -> None:
        self.client_plan = plan.client_plan()
        self.loaded_key_sets = loaded_key_sets
        self.cancelled = cancelled
        self.binding = Binding(plan.parameters, plan.digest)
        self.engine = NumbaEngine(plan.parameters, threads, compact_tables=wants_compact_tables(plan))
        self.loaded: OrderedDict[str, NumbaEngine] = OrderedDict()
        self.zeros: dict[str, NumbaCiphertext | None] = {}
        """Of every loaded key set the encryption of zero that answers are re-randomised with."""
        self.engine.warm_up(lambda message: print(message, file=sys.stderr))  # noqa: T201  (the operator waits for this)
        self.constants = constants_of(plan, self.engine, cache_directory)
        self.plan = plan.without_constants()

    def rehearse(self) -> None:
        """Answer one query of zeros to the longest program, so that the first real one is as fast as any other.

        None that is expected to take more than MOST_REHEARSAL_MILLISECONDS: beside it, touching memory first takes nothing.
        """
        bucket, shape = max(self.plan.programs), (2, 1, self.plan.parameters.ring_degree)
        if program_milliseconds(self.plan.programs[bucket]) > MOST_REHEARSAL_MILLISECONDS:
            return
        outputs = rehearse(self.plan.programs[bucket], self.engine, self.constants[bucket], self.plan.keys)
        self._messages(self.engine, outputs, self.engine.from_rows(np.zeros(shape, np.uint64), 1.0))

    def load(self, key_set: str, files: Mapping[int, str]) -> NumbaEngine:
        """The engine with this client's keys (Galois element -> file), read from disk unless they are in memory."""
        if key_set in self.loaded:
            self.loaded.move_to_end(key_set)
            return self.loaded[key_set]
        while len(self.loaded) >= self.loaded_key_sets:
            self.forget(next(iter(self.loaded)))
        engine, zero = self.engine.without_keys(), None
        for element in self.plan.keys:
            if self.cancelled.is_set():
                raise CancelledError("the caller went away while keys were loaded")
            key = read_evaluation_key(Path(files[element]).read_bytes(), self.binding, self.plan.keys)
            engine.load_key(key.galois_element, key.level, key.digits)
            zero = zero or public_key([key], self.plan.parameters)
        self.loaded[key_set], self.zeros[key_set] = engine, zero
        return engine

    def forget(self, key_set: str) -> None:
        """Free a client's keys."""
        self.loaded.pop(key_set, None)
        self.zeros.pop(key_set, None)

    def self_test(self, key_set: str, files: Mapping[int, str], content: bytes) -> tuple[bytes, bytes]:
        """Answers of the self-test program as messages; empty where it has nothing to do."""
        engine = self.load(key_set, files)
        level, scale = max(self.plan.keys.values()), self.plan.parameters.scale
        fresh = read_input_ciphertext(content, self.binding, level, scale)
        results = self_test(engine, self.plan.keys, engine.from_seeded(fresh.seed, fresh.rows, fresh.scale))
        rotations, square = (
            b"" if result is None else write_result_ciphertext(engine.to_rows(result), result.scale, self.binding)
            for result in results
        )
        return rotations, square

    def infer(
        self, pipe: Connection, key_set: str, files: Mapping[int, str], bucket: int, inputs: dict[str, bytes]
    ) -> tuple[dict[str, bytes], dict[str, float]]:
        """Results by name as messages, and the seconds of each stage."""
        began = time.monotonic()
        engine = self.load(key_set, files)
        program = self.plan.programs[bucket]
        ciphertexts = {}
        for name, value in program.inputs.items():
            fresh = read_input_ciphertext(inputs[name], self.binding, value.level, value.scale)
            ciphertexts[name] = engine.from_seeded(fresh.seed, fresh.rows, fresh.scale)
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                pipe.send(("progress", done, total))

        started = time.monotonic()
        outputs = run(
            program,
            engine,
            self.constants[bucket],
            ciphertexts,
            on_progress=report,
            cancelled=self.cancelled,
        )
        computed = time.monotonic()
        answers = self._messages(engine, outputs, self.zeros[key_set])
        return answers, {
            "load": started - began,
            "compute": computed - started,
            "write": time.monotonic() - computed,
        }

    def _messages(
        self, engine: NumbaEngine, outputs: Mapping[str, NumbaCiphertext], zero: NumbaCiphertext | None
    ) -> dict[str, bytes]:
        """Results by name as messages. zero: an encryption of zero at level 0, which they are re-randomised with."""
        if zero is not None:
            outputs = {name: rerandomised(engine, result, zero) for name, result in outputs.items()}
        period = self.client_plan.answer_period
        if period is None:
            return {
                name: write_result_ciphertext(engine.to_rows(result), result.scale, self.binding)
                for name, result in outputs.items()
            }
        return {
            name: write_answer(engine.to_coefficients(result), period, result.scale, self.binding)
            for name, result in outputs.items()
        }


def main(pipe: Connection, cancelled: Any, settings: WorkerSettings) -> None:
    """Read jobs until the front closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the front decides when to stop, after running requests
    bundle = Bundle.open(Path(settings.bundle_directory))
    plan = plan_bundle(bundle)
    if settings.insecure_test_ring is not None:
        plan = _insecure_test_plan(bundle, plan, settings.insecure_test_ring)
    cache = None if settings.cache_directory is None else Path(settings.cache_directory)
    worker = Worker(plan, settings.threads, cancelled, cache, loaded_key_sets=settings.loaded_key_sets)
    del plan
    keep_freed_memory()
    worker.rehearse()
    pipe.send(("ready", json.dumps(worker.client_plan.to_json()), bundle.client_half_files()))
    while True:
        try:
            job, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        limit_this_job(settings)
        try:
            pipe.send(_answer(worker, pipe, job, arguments))
        except BrokenPipeError:
            return  # the front is gone


def _answer(worker: Worker, pipe: Connection, job: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        match job:
            case "load":
                worker.load(*arguments)
                return ("done", None)
            case "forget":
                worker.forget(*arguments)
                return ("done", None)
            case "self_test":
                return ("done", worker.self_test(*arguments))
            case _:
                return ("done", worker.infer(pipe, *arguments))
    except CancelledError:
        return ("cancelled",)
    except WireError as error:
        return ("refused", error.reason, str(error))
    except BrokenPipeError:
        raise
    except (HERuntimeError, OSError, MemoryError, ArithmeticError, ValueError) as error:
        return ("failed", type(error).__name__)  # the type alone: what a message says might be a client's


def _insecure_test_plan(bundle: Bundle, secure: Plan, ring_degree: int) -> Plan:
    """The same model on a ring that hides nothing, so that tests of everything else are quick."""
    return plan_weights(
        bundle.weights(),
        bundle.config.buckets,
        logit_range=bundle.config.ranges.logits,
        model_digest=bundle.digest,
        parameters=make_parameters(ring_degree, secure.levels, insecure_test=True),
        lowering=secure.lowering,
    )
