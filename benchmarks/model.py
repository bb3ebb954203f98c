"""A whole query on the server's worker: seconds by threads, by stage and by kind of operation beside the planner's estimate.

The worker is this process; the client is another, gone while the worker works. Keys, query and answer pass as on the wire.
"""

import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.client_process import ClientProcess
from benchmarks.machine import machine
from benchmarks.memory import own_bytes, peak_bytes
from benchmarks.report import Report, Row, row
from benchmarks.simulation import simulated_logits
from benchmarks.threads import gain_of_two_threads
from benchmarks.workloads import Workload
from he_runtime.allocation import keep_freed_memory
from he_runtime.cost import operation_milliseconds
from he_runtime.execution import run
from he_runtime.plain_model import logits as plain_logits
from he_runtime.program import Program
from he_runtime.wire.ciphertexts import read_input_ciphertext
from services.server.worker import Worker

KEY_SET = "benchmark"
NO_PIPE = cast("Any", SimpleNamespace(send=lambda _: None))  # where the worker reports its progress


def measure(
    workload: Workload,
    threads: tuple[int, ...] = (1, 2),
    repeats: int = 3,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """`rows`, `seconds_per_query` of the fastest number of threads, errors, bytes and peak memory.

    Stages and operations are measured on the fewest of `threads`; the estimate is for one.
    """
    plan, bucket = workload.plan, workload.bucket
    program = plan.programs[bucket]
    rows: list[Row] = []
    by_threads: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="thex-bench-") as name:
        directory = Path(name)
        on_progress(f"N={plan.parameters.ring_degree}, {plan.levels} levels, {plan.lowering}: {len(plan.keys)} keys")
        with ClientProcess(plan.client_plan(), directory / "client") as client:
            rows.append(row("client: make keys", client.make_keys(directory / "keys")))
            inputs, encrypt_seconds = client.encrypt(bucket, workload.embedded)
            client_peak = client.peak_bytes()
        breakdown: list[Row] = []
        for count in sorted(threads):
            on_progress(f"{count} thread(s)")
            worker = Worker(plan, count, threading.Event(), directory / "plaintexts")
            keep_freed_memory()  # from now on: what encoding took goes back first
            before = own_bytes()
            started = time.perf_counter()
            files = client.key_files(directory / "keys")
            engine = worker.load(KEY_SET, files)
            if not breakdown:
                rows.append(row("server: load keys", time.perf_counter() - started))
            seconds = []
            for _ in range(repeats + 1):
                answers, stages = worker.infer(NO_PIPE, KEY_SET, files, bucket, inputs)
                seconds.append(stages["compute"])
            by_threads[str(count)] = statistics.median(seconds[1:])
            rows.append(row(f"first query, {count} thread(s)", seconds[0]))
            rows.append(row(f"query, {count} thread(s)", by_threads[str(count)]))
            if not breakdown:
                for_one_client = own_bytes() - before
                breakdown = _breakdown(worker, program, bucket, inputs, repeats)
            keys_in_memory = engine.memory_bytes()
            del worker, engine
        server_peak = peak_bytes()  # before the simulator and the plain model, which are no part of a server
        with ClientProcess(plan.client_plan(), directory / "client") as client:
            logits, decrypt_seconds = client.decrypt(bucket, answers["logits"])
        rows += [row("client: encrypt", encrypt_seconds), row("client: decrypt", decrypt_seconds), *breakdown]
        key_bytes = sum(file.stat().st_size for file in (directory / "keys").iterdir())
    simulated, plain = simulated_logits(workload), plain_logits(workload.weights, workload.embedded)
    return {
        "model": workload.name,
        "bucket": bucket,
        "lowering": plan.lowering,
        "ring_degree": plan.parameters.ring_degree,
        "levels": plan.levels,
        "seconds_per_query": min(by_threads.values()),
        "seconds_by_threads": by_threads,
        "gain_of_two_threads": {
            "query": by_threads["1"] / by_threads["2"] if {"1", "2"} <= by_threads.keys() else None,
            "arithmetic": gain_of_two_threads(),
        },
        "threads_of_stages_and_operations": min(threads),
        "estimated_seconds": sum(operation_milliseconds(o, program.parameters) for o in program.operations) / 1e3,
        "max_logit_error": _distance(logits, plain),
        "max_error_against_simulator": _distance(logits, simulated),
        "max_error_of_simulator": _distance(simulated, plain),
        "keys": len(plan.keys),
        "bytes": {
            "keys": key_bytes,
            "keys_in_memory": keys_in_memory,
            "server_memory_for_one_client": for_one_client,
            "up": sum(len(message) for message in inputs.values()),
            "down": sum(len(message) for message in answers.values()),
        },
        "peak_memory_bytes": {"client": client_peak, "server": server_peak},
        "rows": rows,
        "machine": machine(),
    }


def _breakdown(worker: Worker, program: Program, bucket: int, inputs: dict[str, bytes], repeats: int) -> list[Row]:
    """Seconds of every stage and kind of operation: medians over the repeats of each operation, added up."""
    engine = worker.load(KEY_SET, {})  # it is in memory
    ciphertexts = {}
    for name, value in program.inputs.items():
        fresh = read_input_ciphertext(inputs[name], worker.binding, value.level, value.scale)
        ciphertexts[name] = engine.from_seeded(fresh.seed, fresh.rows, fresh.scale)
    taken: list[list[float]] = [[] for _ in program.operations]
    last = 0.0

    def note(done: int, _total: int) -> None:
        # One operation runs at a time and they end in the program's order.
        nonlocal last
        now = time.perf_counter()
        taken[done - 1].append(now - last)
        last = now

    for _ in range(repeats):
        last = time.perf_counter()
        run(program, engine, worker.constants[bucket], ciphertexts, on_progress=note)
    measured: dict[str, float] = defaultdict(float)
    estimated: dict[str, float] = defaultdict(float)
    for operation, seconds in zip(program.operations, taken, strict=True):
        for group in (f"stage: {operation.stage}", f"operation: {operation.kind}"):
            measured[group] += statistics.median(seconds)
            estimated[group] += operation_milliseconds(operation, program.parameters) / 1e3
    stages = [group for group in measured if group.startswith("stage")]
    kinds = sorted((group for group in measured if group not in stages), key=lambda group: -measured[group])
    return [{**row(group, measured[group]), "estimated_seconds": estimated[group]} for group in [*stages, *kinds]]


def _distance(left: Any, right: Any) -> float:
    return float(np.abs(left - right).max())
