"""Sizes and a rough price of a plan, worked out without encrypting anything.

Prices are milliseconds on one thread of an AMD EPYC with AVX-512, fitted to measured operations at 16, 10 and 6 primes; other
machines differ, but the planner needs ratios only. `thex bench model` puts estimate and measurement side by side.
"""

from dataclasses import dataclass

from he_runtime.parameters import Parameters
from he_runtime.program import Operation, Program


@dataclass(frozen=True)
class StageCost:
    """One stage of a program."""

    stage: str
    level_in: int
    level_out: int
    rotations: int
    ciphertext_products: int
    relinearisations: int
    plaintext_products: int
    rescales: int
    milliseconds: float


def operation_milliseconds(operation: Operation, parameters: Parameters) -> float:
    """Estimated price of one operation on one thread.

    A key switch is counted in rows: `extend` transforms each digit at every prime of q and P, `switch` reads the key and
    transforms both halves of the result.
    """
    rows, ring = operation.level + 1, parameters.ring_degree / 32768
    every = rows + len(parameters.special_primes)
    digits = parameters.digit_count(operation.level)
    extend = 0.14 * digits * every
    switch = 0.03 * digits * every + 0.34 * every
    products = sum(index >= 0 for index in operation.constants)
    match operation.kind:
        case "rotate":
            return ring * (extend + switch * len(operation.steps))
        case "conjugate":
            return ring * (extend + switch)
        case "product_sum":
            return ring * (extend + switch + 0.1 * rows * (len(operation.inputs) // 2))
        case "weighted_sum" | "weighted_sums":
            return ring * 0.045 * rows * products
        case "rescale":
            return ring * 0.26 * rows
        case "drop" | "reinterpret":
            return 0.0
        case _:
            return ring * 0.045 * rows


def program_milliseconds(program: Program) -> float:
    """Estimated price of a whole program on one thread."""
    return sum(operation_milliseconds(operation, program.parameters) for operation in program.operations)


def stage_costs(program: Program) -> list[StageCost]:
    """Costs by stage, in the order of the program."""
    stages: dict[str, list[Operation]] = {}
    for operation in program.operations:
        stages.setdefault(operation.stage, []).append(operation)
    costs = []
    for stage, operations in stages.items():
        products = [operation for operation in operations if operation.kind == "product_sum"]
        costs.append(
            StageCost(
                stage,
                max(operation.level for operation in operations),
                min(operation.target_level for operation in operations),
                sum(len(operation.steps) for operation in operations),
                sum(len(operation.inputs) // 2 for operation in products),
                len(products),
                sum(i >= 0 for o in operations if o.kind.startswith("weighted_sum") for i in o.constants),
                sum(operation.kind == "rescale" for operation in operations),
                sum(operation_milliseconds(operation, program.parameters) for operation in operations),
            )
        )
    return costs
