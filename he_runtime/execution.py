"""Running a program on any engine: operations start as soon as their operands exist, values are freed after their last use.

Engines release the interpreter lock in their kernels, so a few threads keep all cores busy. With one thread the earliest
operation goes first, which keeps few values alive; with more, the one with the most work waiting behind it, so that no
thread ends up idle.
"""

import heapq
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from he_runtime.cost import operation_milliseconds
from he_runtime.engines.interface import Engine
from he_runtime.program import Operation, Program

Progress = Callable[[int, int], None]


class CancelledError(Exception):
    """The caller asked for the execution to stop."""


def encode_constants(
    program: Program, engine: Engine[Any, Any], known: dict[tuple[bytes, int, float], Any] | None = None
) -> list[Any]:
    """The program's plaintexts as the engine's own, in order. Done once; shared by all queries.

    `known` collects them by value, level and scale: programs of several buckets share most of theirs through it.
    """
    known = {} if known is None else known
    encoded = []
    for constant in program.constants:
        key = (constant.values.dtype.char.encode() + constant.values.tobytes(), constant.level, constant.scale)
        if key not in known:
            known[key] = engine.encode(constant.values, constant.level, constant.scale)
        encoded.append(known[key])
    return encoded


def run(
    program: Program,
    engine: Engine[Any, Any],
    constants: list[Any],
    inputs: Mapping[str, Any],
    *,
    threads: int = 1,
    on_progress: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> dict[str, Any]:
    """Outputs by name. `on_progress(done, total)` counts operations; setting `cancelled` ends with CancelledError."""
    missing = program.inputs.keys() - inputs.keys()
    if missing:
        raise ValueError(f"the program's inputs {sorted(missing)} were not given")
    values: dict[int, Any] = {value.identity: inputs[name] for name, value in program.inputs.items()}
    uses = program.last_use()
    results = {value.identity for value in program.outputs.values()}
    producer = {output: index for index, operation in enumerate(program.operations) for output in operation.outputs}
    priority = _work_behind(program) if threads > 1 else [0.0] * len(program.operations)
    waiting: list[int] = []
    readers: dict[int, list[int]] = defaultdict(list)
    ready: list[tuple[float, int]] = []
    for index, operation in enumerate(program.operations):
        sources = {producer[i] for i in operation.inputs if i in producer}
        waiting.append(len(sources))
        for source in sources:
            readers[source].append(index)
        if not sources:
            heapq.heappush(ready, (-priority[index], index))

    done, total = 0, len(program.operations)
    running: dict[Future[list[Any]], int] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="engine") as pool:
        try:
            while ready or running:
                if cancelled is not None and cancelled.is_set():
                    raise CancelledError("the execution was cancelled")
                while ready and len(running) < threads:
                    _, index = heapq.heappop(ready)
                    operation = program.operations[index]
                    operands = [values[i] for i in operation.inputs]
                    running[pool.submit(_apply, engine, operation, operands, constants)] = index
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)
                    operation = program.operations[index]
                    values.update(zip(operation.outputs, future.result(), strict=True))
                    for identity in set(operation.inputs):
                        uses[identity] -= 1
                        if uses[identity] == 0 and identity not in results:
                            del values[identity]
                    for reader in readers[index]:
                        waiting[reader] -= 1
                        if waiting[reader] == 0:
                            heapq.heappush(ready, (-priority[reader], reader))
                    done += 1
                    if on_progress is not None:
                        on_progress(done, total)
        finally:
            for future in running:
                future.cancel()
    return {name: values[value.identity] for name, value in program.outputs.items()}


def _work_behind(program: Program) -> list[float]:
    """For each operation the longest chain of estimated milliseconds from its start to the program's end."""
    behind: dict[int, float] = defaultdict(float)
    lengths = [0.0] * len(program.operations)
    for index in range(len(program.operations) - 1, -1, -1):
        operation = program.operations[index]
        after = max((behind[output] for output in operation.outputs), default=0.0)
        lengths[index] = after + operation_milliseconds(operation, program.parameters)
        for identity in operation.inputs:
            behind[identity] = max(behind[identity], lengths[index])
    return lengths


def _apply(engine: Engine[Any, Any], operation: Operation, operands: list[Any], constants: list[Any]) -> list[Any]:
    plaintexts = [constants[index] for index in operation.constants if index >= 0]
    match operation.kind:
        case "rotate":
            return engine.rotate(operands[0], operation.steps)
        case "weighted_sum":
            return [engine.weighted_sum(operands, plaintexts)]
        case "weighted_sums":
            terms = len(operands)
            table = [None if index < 0 else constants[index] for index in operation.constants]
            return engine.weighted_sums(operands, [table[i : i + terms] for i in range(0, len(table), terms)])
        case "product_sum":
            half = len(operands) // 2
            return [engine.product_sum(operands[:half], operands[half:])]
        case "rescale":
            return [engine.rescale(operands[0])]
        case "drop":
            return [engine.drop(operands[0], operation.target_level)]
        case "conjugate":
            return [engine.conjugate(operands[0])]
        case "combine":
            return [engine.combine(operands[0], operands[-1], operation.power)]
        case "reinterpret":
            return [engine.at_scale(operands[0], 2 * engine.scale(operands[0]))]
        case "add":
            return [engine.add(*operands)]
        case "add_plain":
            return [engine.add_plain(operands[0], plaintexts[0])]
        case kind:
            raise ValueError(f"the engine interface has no operation {kind!r}")
