"""Prices of the cost model, fitted to measured operations: what `he_runtime.cost.MICROSECONDS` holds."""

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.report import Report, row
from he_runtime.allocation import keep_freed_memory
from he_runtime.cost import MICROSECONDS, PRICED_RING_DEGREE, kernel_rows
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.parameters import Parameters, make_parameters
from he_runtime.program import RELINEARISATION, Operation, galois_element

LEVELS = (15, 12, 9, 6, 3)
STEPS = tuple(range(1, 17))


def measure(repeats: int = 5) -> Report:
    """`microseconds` by kernel, and for every operation that was measured its seconds beside the fit's."""
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise ValueError("the fit needs scipy: pip install 'thex[train]', or scipy alone") from None
    keep_freed_memory()
    parameters = make_parameters(PRICED_RING_DEGREE, max(LEVELS))
    engine = _engine(parameters)
    operations, seconds = [], []
    for level in LEVELS:
        for operation in _operations(level):
            operations.append(operation)
            seconds.append(_time(engine, operation, repeats))
    counts = [kernel_rows(operation, parameters) for operation in operations]
    matrix = np.array([[count[kernel] for kernel in MICROSECONDS] for count in counts], np.float64)
    measured = np.array(seconds) * 1e6
    # Relative errors count, or the largest operations alone would decide.
    prices, _ = nnls(matrix / measured[:, None], np.ones(len(measured)))
    rows = [
        {**row(f"{operation.kind}, level {operation.level}", second), "estimated_seconds": fitted / 1e6}
        for operation, second, fitted in zip(operations, seconds, matrix @ prices, strict=True)
    ]
    microseconds = dict(zip(MICROSECONDS, prices.round(1).tolist(), strict=True))
    return {"microseconds": microseconds, "rows": rows, "machine": machine()}


def _operations(level: int) -> list[Operation]:
    def operation(kind: str, inputs: int, outputs: int, **fields: Any) -> Operation:
        return Operation(kind, "", (0,) * inputs, (1,) * outputs, level=level, target_level=level - 1, **fields)

    return [
        operation("rotate", 1, 1, steps=STEPS[:1]),
        operation("rotate", 1, 8, steps=STEPS[:8]),
        operation("multiply", 2, 1),
        operation("multiply", 16, 1),
        operation("linear_transforms", 1, 1, steps=(0, *STEPS[:15]), giant_step=16, sums=(1,)),
        operation("linear_transforms", 1, 1, steps=(0, *STEPS[:15]), giant_step=16, sums=(8,)),
        operation("linear_transforms", 1, 2, steps=(0, *STEPS[:15]), giant_step=16, sums=(8, 8)),
        operation("linear_transforms", 2, 1, steps=(0, *STEPS[:7]), giant_step=8, sums=(4,)),
        operation("rescale", 1, 1),
        operation("add", 2, 1),
    ]


def _engine(parameters: Parameters) -> NumbaEngine:
    """Keys of random residues: the work is the same as with real ones, and nothing is ever decrypted."""
    engine = NumbaEngine(parameters)
    engine.warm_up()
    level, random = parameters.maximum_level, np.random.default_rng(0)
    rows = len(parameters.all_primes)
    for element in (RELINEARISATION, *(galois_element(step, parameters) for step in STEPS)):
        digits = [
            (random.bytes(64), _residues(random, (rows, parameters.ring_degree)))
            for _ in range(parameters.digit_count(level))
        ]
        engine.load_key(element, level, digits)
    return engine


def _residues(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    return random.integers(0, 2**34, shape, np.uint64)


def _time(engine: NumbaEngine, operation: Operation, repeats: int) -> float:
    """Median seconds of one thread."""
    parameters, level, random = engine.parameters, operation.level, np.random.default_rng(1)
    ciphertexts = [
        engine.from_rows(_residues(random, (2, level + 1, parameters.ring_degree)), parameters.scale)
        for _ in range(min(len(operation.inputs), 4))
    ]
    operands = [ciphertexts[i % len(ciphertexts)] for i in range(len(operation.inputs))]
    half = len(operands) // 2
    tables = [
        [
            engine.encode_table(random.normal(size=(count, len(operation.steps), 512)), level, parameters.scale)
            for _ in operands
        ]
        for count in operation.sums
    ]
    calls = {
        "rotate": lambda: engine.rotate(operands[0], operation.steps),
        "multiply": lambda: engine.multiply(operands[:half], operands[half:]),
        "linear_transforms": lambda: engine.linear_transforms(operands, tables, operation.steps, operation.giant_step),
        "rescale": lambda: engine.rescale(operands[0]),
        "add": lambda: engine.add(operands[0], operands[-1]),
    }
    call, times = calls[operation.kind], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
