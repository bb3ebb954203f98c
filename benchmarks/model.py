"""A whole query on the evaluator: seconds by stage beside the planner's estimate, and by kind of operation."""

import statistics
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from he_runtime.allocation import keep_freed_memory
from he_runtime.bundle import Bundle
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.cost import stage_costs
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.execution import encode_constants, run
from he_runtime.plain_model import logits as plain_logits
from he_runtime.plan import plan_bundle
from he_runtime.seal import SealClient
from he_runtime.wire.sizes import evaluation_key_bytes, input_ciphertext_bytes


class TimedEngine:
    """An engine that notes how long each of its calls took on the thread that made it."""

    def __init__(self, engine: NumbaEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = method(*arguments)
            with self._lock:
                self.seconds[name] += time.perf_counter() - started
            return result

        return timed


def measure(bundle: Bundle, bucket: int, threads: tuple[int, ...] = (1, 2), repeats: int = 3) -> dict[str, object]:
    """`rows` of name, seconds (one thread, median) and for stages estimated_seconds; `seconds_by_threads`; errors; bytes."""
    keep_freed_memory()
    plan = plan_bundle(bundle, (bucket,))
    parameters, program, client_plan = plan.parameters, plan.programs[bucket], plan.client_plan()
    client = SealClient(parameters)
    secret = client.generate_secret_key()
    engine = NumbaEngine(parameters)
    engine.warm_up()
    for key in make_evaluation_keys(client, secret, plan.keys):
        engine.load_key(key.galois_element, key.level, key.digits)
    constants = encode_constants(program, engine)
    hidden = bundle.weights().architecture.hidden
    text = np.random.default_rng(0).normal(size=(bucket, hidden))
    inputs = {}
    for name, slots in client_plan.pack(bucket, text).items():
        fresh = client.encrypt(secret, slots, program.inputs[name].level, parameters.scale)
        if fresh.seed is None:
            raise RuntimeError("SEAL gave an encryption without a seed")
        inputs[name] = engine.from_seeded(fresh.seed, fresh.rows[0], parameters.scale)
    by_threads: dict[str, float] = {}
    for count in threads:
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            result = run(program, engine.with_threads(count), constants, inputs)["logits"]
            seconds.append(time.perf_counter() - started)
        by_threads[str(count)] = statistics.median(seconds)
    timed = TimedEngine(engine)
    stages: dict[str, float] = defaultdict(float)
    done = time.perf_counter()

    def note(count: int, _total: int) -> None:
        nonlocal done
        stages[program.operations[count - 1].stage] += time.perf_counter() - done
        done = time.perf_counter()

    run(program, timed, constants, inputs, on_progress=note)
    slots = client.decrypt_complex(secret, engine.to_rows(result), result.scale)
    error = np.abs(client_plan.unpack(bucket, slots) - plain_logits(bundle.weights(), text)).max()
    estimates = {cost.stage: cost.milliseconds / 1e3 for cost in stage_costs(program)}
    rows: list[dict[str, object]] = [
        {"name": f"stage: {stage}", "seconds": seconds, "estimated_seconds": estimates[stage]}
        for stage, seconds in stages.items()
    ]
    kinds = sorted(timed.seconds.items(), key=lambda item: -item[1])
    rows += [{"name": f"operation: {name}", "seconds": seconds} for name, seconds in kinds if name in ENGINE_CALLS]
    return {
        "rows": rows,
        "bucket": bucket,
        "lowering": plan.lowering,
        "seconds_per_query": min(by_threads.values()),
        "seconds_by_threads": by_threads,
        "estimated_seconds": sum(estimates.values()),
        "max_logit_error": float(error),
        "bytes": {
            "keys": sum(evaluation_key_bytes(parameters, level) for level in plan.keys.values()),
            "keys_in_memory": engine.memory_bytes(),
            "up": sum(input_ciphertext_bytes(parameters, value.level) for value in program.inputs.values()),
        },
        "peak_memory_bytes": _peak_memory(),
        "machine": machine(),
    }


ENGINE_CALLS = {
    *("rotate", "conjugate", "combine", "weighted_sum", "linear_transforms", "product_sum", "multiply"),
    *("rescale", "drop", "add", "add_plain"),
}


def _peak_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    return 0
