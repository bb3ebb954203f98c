"""Running a program on any engine, operation by operation in the program's order; values are freed after their last use.

Engines use several threads inside one operation, by rows of residues: all of them are busy whatever waits for what, and no
more values are alive than with one.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from he_runtime.engines.interface import Engine
from he_runtime.program import Constant, Operation, Program

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
        key = (constant.digest, constant.level, constant.scale)
        if key not in known:
            known[key] = encode_constant(constant, engine)
        encoded.append(known[key])
    return encoded


def encode_constant(constant: Constant, engine: Engine[Any, Any]) -> Any:
    """One plaintext as the engine's own: a vector, or the table of a linear transform."""
    encode = engine.encode if constant.values.ndim == 1 else engine.encode_table
    return encode(constant.values, constant.level, constant.scale)


def run(
    program: Program,
    engine: Engine[Any, Any],
    constants: list[Any],
    inputs: Mapping[str, Any],
    *,
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
    for done, operation in enumerate(program.operations):
        if cancelled is not None and cancelled.is_set():
            raise CancelledError("the execution was cancelled")
        operands = [values[i] for i in operation.inputs]
        values.update(zip(operation.outputs, _apply(engine, operation, operands, constants), strict=True))
        del operands
        for identity in set(operation.inputs):
            uses[identity] -= 1
            if uses[identity] == 0 and identity not in results:
                del values[identity]
        if on_progress is not None:
            on_progress(done + 1, len(program.operations))
    return {name: values[value.identity] for name, value in program.outputs.items()}


def _apply(engine: Engine[Any, Any], operation: Operation, operands: list[Any], constants: list[Any]) -> list[Any]:
    plaintexts = [constants[index] for index in operation.constants]
    match operation.kind:
        case "rotate":
            return engine.rotate(operands[0], operation.steps)
        case "weighted_sum":
            return [engine.weighted_sum(operands, plaintexts)]
        case "linear_transforms":
            inputs = len(operands)
            tables = [plaintexts[i : i + inputs] for i in range(0, len(plaintexts), inputs)]
            return engine.linear_transforms(operands, tables, operation.steps, operation.giant_step)
        case "product_sum" | "multiply":
            half = len(operands) // 2
            product = engine.product_sum if operation.kind == "product_sum" else engine.multiply
            return [product(operands[:half], operands[half:])]
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
