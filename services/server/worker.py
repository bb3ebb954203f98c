"""The worker process: owns the evaluator, one job at a time. Sees ciphertexts and evaluation keys only.

It talks to the front over a pipe: ("ready", plan JSON, files) once, then for each job any number of ("progress", done, total)
and one of ("done", payload), ("refused", reason, message) or ("cancelled",).
"""

import json
import signal
import sys
import time
from collections import OrderedDict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from he_runtime.allocation import keep_freed_memory
from he_runtime.bundle import Bundle
from he_runtime.constant_cache import constants_of
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.errors import HERuntimeError, WireError
from he_runtime.execution import CancelledError, run
from he_runtime.plan import Plan, plan_bundle
from he_runtime.wire.answers import write_answer
from he_runtime.wire.ciphertexts import read_input_ciphertext, write_result_ciphertext
from he_runtime.wire.evaluation_keys import read_evaluation_key
from he_runtime.wire.message import Binding

LOADED_KEY_SETS = 2  # each takes about 1.3 GB of memory for the shipped model
PROGRESS_SECONDS = 0.2


class Worker:
    """Everything that a job needs."""

    def __init__(self, plan: Plan, threads: int, cancelled: Any, cache_directory: Path | None = None) -> None:
        self.plan = plan
        self.client_plan = plan.client_plan()
        self.cancelled = cancelled
        self.binding = Binding(plan.parameters, plan.digest)
        self.engine = NumbaEngine(plan.parameters, threads)
        self.loaded: OrderedDict[str, NumbaEngine] = OrderedDict()
        self.engine.warm_up(lambda message: print(message, file=sys.stderr))  # noqa: T201  (the operator waits for this)
        self.constants = constants_of(plan, self.engine, cache_directory)

    def load(self, key_set: str, directory: Path) -> NumbaEngine:
        """The engine with this client's keys, read from disk unless they are in memory."""
        if key_set in self.loaded:
            self.loaded.move_to_end(key_set)
            return self.loaded[key_set]
        while len(self.loaded) >= LOADED_KEY_SETS:
            self.loaded.popitem(last=False)
        engine = self.engine.without_keys()
        for element in self.plan.keys:
            content = (directory / f"{element}.key").read_bytes()
            key = read_evaluation_key(content, self.binding, self.plan.keys)
            engine.load_key(key.galois_element, key.level, key.digits)
        self.loaded[key_set] = engine
        return engine

    def forget(self, key_set: str) -> None:
        """Free a client's keys."""
        self.loaded.pop(key_set, None)

    def infer(
        self, pipe: Connection, key_set: str, directory: Path, bucket: int, inputs: dict[str, bytes]
    ) -> tuple[dict[str, bytes], float]:
        """Results by name as messages, and the seconds that the program took."""
        engine = self.load(key_set, directory)
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
        seconds = time.monotonic() - started
        period = self.client_plan.answer_period
        if period is None:
            answers = {
                name: write_result_ciphertext(engine.to_rows(result), result.scale, self.binding)
                for name, result in outputs.items()
            }
        else:
            answers = {
                name: write_answer(engine.to_coefficients(result), period, result.scale, self.binding)
                for name, result in outputs.items()
            }
        return answers, seconds


def main(pipe: Connection, cancelled: Any, bundle_directory: str, threads: int, cache_directory: str | None) -> None:
    """Entry point of the spawned process."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front decides when to stop
    bundle = Bundle.open(Path(bundle_directory))
    plan = plan_bundle(bundle)
    worker = Worker(plan, threads, cancelled, None if cache_directory is None else Path(cache_directory))
    files = {name: str(path) for name, path in bundle.client_half_files().items()}
    pipe.send(("ready", json.dumps(plan.client_plan().to_json()), files))
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if job == "load":
                worker.load(*arguments)
                pipe.send(("done", None))
            elif job == "forget":
                worker.forget(*arguments)
                pipe.send(("done", None))
            else:
                pipe.send(("done", worker.infer(pipe, *arguments)))
        except CancelledError:
            pipe.send(("cancelled",))
        except WireError as error:
            pipe.send(("refused", error.reason, str(error)))
        except (HERuntimeError, OSError) as error:
            pipe.send(("refused", type(error).__name__, "the request could not be executed"))
