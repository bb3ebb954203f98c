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

    A key switch is counted in rows: `extend` transforms each digit at every prime of q and P, `product` reads the key, `switch`
    divides by P and transforms both halves of the result.
    """
    rows, ring = operation.level + 1, parameters.ring_degree / 32768
    every = rows + len(parameters.special_primes)
    digits = parameters.digit_count(operation.level)
    extend = 0.08 * (rows + digits * every)
    product = 0.05 * digits * every
    switch = product + 0.17 * every + 0.1 * rows
    match operation.kind:
        case "rotate" | "conjugate":
            return ring * (extend + switch * operation.rotations)
        case "product_sum" | "multiply":
            return ring * (extend + switch + 0.09 * rows * operation.ciphertext_products)
        case "linear_transforms":
            inputs, babies, outputs = len(operation.inputs), len(operation.steps), len(operation.outputs)
            giants = sum(operation.sums) - outputs
            baby = product + 0.05 * every
            giant = 0.08 * every + extend + product + 0.05 * every
            weights = 0.012 * every * operation.plaintext_products
            return ring * (inputs * (extend + babies * baby) + weights + giants * giant + outputs * 0.2 * every)
        case "weighted_sum":
            return ring * 0.08 * rows * len(operation.constants)
        case "rescale":
            return ring * 0.22 * rows
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
        costs.append(
            StageCost(
                stage,
                max(operation.level for operation in operations),
                min(operation.target_level for operation in operations),
                sum(operation.rotations for operation in operations),
                sum(operation.ciphertext_products for operation in operations),
                sum(operation.ciphertext_products > 0 for operation in operations),
                sum(operation.plaintext_products for operation in operations),
                sum(operation.target_level < operation.level and operation.kind != "drop" for operation in operations),
                sum(operation_milliseconds(operation, program.parameters) for operation in operations),
            )
        )
    return costs
