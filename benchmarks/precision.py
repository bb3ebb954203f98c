"""How many bits of every intermediate value of an encrypted query are right, by stage and by layer; needs the secret key."""

import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.client_process import ClientProcess
from benchmarks.machine import machine
from benchmarks.report import Report
from benchmarks.simulation import simulated_slots
from benchmarks.workloads import Workload
from he_runtime.execution import run
from he_runtime.precision import Precision, precision_by_layer, precision_by_stage, stage_results, with_stage_results
from he_runtime.wire.ciphertexts import read_input_ciphertext
from services.server.worker import Worker


def measure(workload: Workload, threads: int = 2, on_progress: Callable[[str], None] = lambda _: None) -> Report:
    """`rows` and `layers`: bits of each stage and each layer; `stages`: every statistic, both parts apart."""
    plan, bucket = workload.plan, workload.bucket
    program = with_stage_results(plan.programs[bucket])
    results = stage_results(plan.programs[bucket])
    with (
        tempfile.TemporaryDirectory(prefix="thex-bench-") as name,
        ClientProcess(plan.client_plan(), Path(name) / "client") as client,
    ):
        keys = Path(name) / "keys"
        on_progress(f"{len(plan.keys)} keys, {len(results)} values of {len({r.stage for r in results})} stages")
        client.make_keys(keys)
        inputs, _ = client.encrypt(bucket, workload.embedded)
        worker = Worker(plan, threads, threading.Event())
        engine = worker.load("precision", client.key_files(keys))
        ciphertexts = {}
        for input_name, value in program.inputs.items():
            fresh = read_input_ciphertext(inputs[input_name], worker.binding, value.level, value.scale)
            ciphertexts[input_name] = engine.from_seeded(fresh.seed, fresh.rows, fresh.scale)
        outputs = run(program, engine, worker.constants[bucket], ciphertexts)
        measured = {
            output: client.decrypt_rows(engine.to_rows(ciphertext), engine.scale(ciphertext))
            for output, ciphertext in outputs.items()
        }
    expected = simulated_slots(workload, program)
    levels = {result.stage: result.level for result in results}
    stages = precision_by_stage(results, measured, expected)
    layers = precision_by_layer(results, measured, expected)
    return {
        "model": workload.name,
        "bucket": bucket,
        "rows": [{"name": stage, "level": levels[stage], **_bits(found)} for stage, found in stages.items()],
        "layers": [{"name": layer, **_bits(found)} for layer, found in layers.items()],
        "stages": {stage: asdict(found) for stage, found in stages.items()},
        "machine": machine(),
    }


def _bits(found: Precision) -> dict[str, float]:
    return {
        "min_bits": found.modulus.minimum,
        "mean_bits": found.modulus.mean,
        "max_bits": found.modulus.maximum,
        "min_bits_real": found.real.minimum,
        "min_bits_imaginary": found.imaginary.minimum,
        "largest_value": found.largest_value,
        "largest_error": found.largest_error,
    }
